"""Show the dead letters of a queue, without taking them: python dead_letters.py processing_recipe"""

import sys
from queue import Empty, SimpleQueue

from parvis.config import Config
from parvis.transport.base import Message

config = Config.load()
queue = f"DLQ.{config.stomp.prefix}.{sys.argv[1]}"
letters: SimpleQueue[Message] = SimpleQueue()
transport = config.transport()
transport.connect()
transport.subscribe(queue, letters.put, prefetch=1000, absolute=True)
try:
    while True:
        letter = letters.get(timeout=1)
        print(letter.headers.get("parvis-time"), letter.headers.get("parvis-reason"))
except Empty:
    transport.disconnect()
