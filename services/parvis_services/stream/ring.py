"""A ring of messages in shared memory, so that several programs take one stream and none waits for another.

One writer writes over what is oldest; it never waits. Each reader goes at its own pace. One that is too slow
is overtaken: it sees how many messages it lost, and goes on with what is there. Whether what it copied was
written over meanwhile it sees by numbers that the writer changes before it touches a slot (a seqlock).

All memory is taken when the ring is made. Of a file that has holes the kernel would kill the process that
touches one when the memory is used up. A message that is larger than a slot, as the start of a series is,
takes several, so that slots can have the size of frames.

The last message that starts a series is kept in a file beside the ring. So a reader that comes late, or comes
again, begins with the last series: its start, and what the ring still has of it.

Readers look for news in pauses that grow with the silence (0.1 to 10 ms). Python has no futex, and a socket
from the writer to each reader would be something that can fill up or break.

`multiprocessing.shared_memory` would do harm here: up to Python 3.12 the first reader that ends removes the
memory for all.
"""

from parvis_services.stream.ring_layout import RingError
from parvis_services.stream.ring_reader import RingReader
from parvis_services.stream.ring_writer import RingWriter

__all__ = ["RingError", "RingReader", "RingWriter"]
