"""Makes a hostile image of an exported checkpoint, with every digest as it should be.

usage: forge_checkpoint.py LAYOUT OUT [KEY=JSON...]   keys of the checkpoint's manifest that are replaced
"""

import hashlib
import json
import shutil
import sys


def blob(layout, digest):
    with open(f"{layout}/blobs/sha256/{digest[7:]}", encoding="utf-8") as f:
        return json.load(f)


def put(layout, document):
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{layout}/blobs/sha256/{digest}", "wb") as f:
        f.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def main(layout, out, *changes):
    shutil.copytree(layout, out)
    with open(out + "/index.json", encoding="utf-8") as f:
        index = json.load(f)
    manifest = blob(out, index["manifests"][0]["digest"])
    config = blob(out, manifest["config"]["digest"])
    checkpoint = json.loads(config["io.pinfold.checkpoint"])
    for change in changes:
        key, value = change.split("=", 1)
        checkpoint[key] = json.loads(value)
    config["io.pinfold.checkpoint"] = json.dumps(checkpoint)
    manifest["config"].update(put(out, config))
    index["manifests"][0].update(put(out, manifest))
    with open(out + "/index.json", "w", encoding="utf-8") as f:
        json.dump(index, f)


main(*sys.argv[1:])
