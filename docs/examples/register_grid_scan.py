"""Register a grid scan of 6 x 4 images in the metadata database, as an acquisition does; print its DCID.

The database is the one that PARVIS_ISPYB_URL names, the argument is the directory of the visit.
"""

import os
import sys

from parvis_services.ispyb import collections
from parvis_services.ispyb.database import Database

visit_directory = sys.argv[1]
database = Database(os.environ["PARVIS_ISPYB_URL"])
proposal = collections.find_proposal(database, "cm", 12345)
if proposal is None:
    proposal = collections.create_proposal(database, "cm", 12345)
session = collections.find_session(database, proposal, visit=1)
if session is None:
    session = collections.create_session(database, proposal, visit=1, beamline="i03")
group = collections.create_group(database, session, experiment="Mesh")
dcid = collections.create_collection(
    database, group, directory=f"{visit_directory}/scan", template="grid_1_#####.cbf", images=24
)
collections.create_grid(database, dcid, steps=(6, 4), step_size=(0.02, 0.02), snaked=True)
print(dcid)
