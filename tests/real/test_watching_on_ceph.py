"""The object watcher on a real object store: listings of more than a page, by somebody who may only read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from parvis.config import Config
from parvis.service.testing import run
from parvis_services.stores.layout import SeriesPlace
from parvis_services.stores.policy import bucket_policy
from parvis_services.stores.profiles import open_store
from parvis_services.stores.s3 import S3Store
from parvis_services.watch.object_watcher import ObjectWatcher
from real.ceph import USERS, Ceph
from watches import numbers, to_the_end

IMAGES = 1105
GAP = range(500, 505)
PLACE = SeriesPlace("standard", "watched", "scans", 4077358, 1)


def test_a_replay_goes_through_all_pages_of_a_listing(ceph: Ceph) -> None:
    config = Config(storage={"parvis.stores": {"ceph": ceph.profile()}})
    there = [number for number in range(1, IMAGES + 1) if number not in GAP]
    store = open_store("ceph", "manage", config.storage)
    assert isinstance(store, S3Store)
    store.make_bucket(PLACE.bucket)
    store.set_policy(PLACE.bucket, bucket_policy(PLACE.bucket, readers=[USERS["read"]]))
    with ThreadPoolExecutor(16) as threads:
        keys = [PLACE.header, PLACE.manifest, *map(PLACE.frame, there)]
        list(threads.map(lambda key: store.put(PLACE.bucket, key, b"x"), keys))
    store.close()
    parameters = {"objects": "s3://ceph/watched/scans/4077358/1", "list-all": True, "burst-limit": 600}
    sent = to_the_end(lambda payload: run(ObjectWatcher, payload, parameters=parameters, config=config))
    assert numbers(sent["every"]) == there
    (end,) = sent["finally"]
    assert (end["images-expected"], end["missing"]) == (IMAGES, [[GAP[0], GAP[-1]]])
