#!/usr/bin/python3
"""Whether standard input is a features document as features.md and features-linux.md of the runtime specification
1.3 describe it; prints what is wrong."""

import json
import sys

import jsonschema

WORDS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
SWITCH = {"type": "object", "properties": {"enabled": {"type": "boolean"}}, "additionalProperties": False}


def closed(**properties):
    return {"type": "object", "properties": properties, "additionalProperties": False}


def words(pattern):
    return {"type": "array", "uniqueItems": True, "items": {"type": "string", "pattern": pattern}}


def one_of(*values):
    return {"type": "array", "uniqueItems": True, "items": {"enum": list(values)}}


BOOL = {"type": "boolean"}
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+(-[0-9A-Za-z.+-]+)?$"}
FLAGS = one_of("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
               "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **closed(
        ociVersionMin=VERSION, ociVersionMax=VERSION, hooks=one_of(
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
        mountOptions=WORDS, annotations={"type": "object", "additionalProperties": {"type": "string"}},
        potentiallyUnsafeConfigAnnotations=WORDS, linux=closed(
            namespaces=one_of("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"),
            capabilities=words("^CAP_[A-Z_]+$"),
            cgroup=closed(v1=BOOL, v2=BOOL, systemd=BOOL, systemdUser=BOOL, rdma=BOOL),
            seccomp=closed(
                enabled=BOOL, actions=words("^SCMP_ACT_[A-Z_]+$"), operators=words("^SCMP_CMP_[A-Z_]+$"),
                archs=words("^SCMP_ARCH_[A-Z0-9_]+$"), knownFlags=FLAGS, supportedFlags=FLAGS),
            apparmor=SWITCH, selinux=SWITCH,
            intelRdt=closed(enabled=BOOL, schemata=BOOL, monitoring=BOOL),
            memoryPolicy=closed(modes=words("^MPOL_[A-Z_]+$"), flags=words("^MPOL_F_[A-Z_]+$")),
            mountExtensions=closed(idmap=SWITCH), netDevices=SWITCH)),
    "required": ["ociVersionMin", "ociVersionMax"],
}

errors = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(json.load(sys.stdin)))
for e in errors:
    print(f"{'/'.join(str(p) for p in e.absolute_path)}: {e.message}")
sys.exit(bool(errors))
