#!/usr/bin/python3
"""Stands in for systemd's manager on a private bus: makes scopes' cgroups, moves processes there, says that its jobs
are done, and writes every call down as a line of JSON.

usage: mock_systemd.py BUS-ADDRESS CGROUP-TREE LOG"""

import json
import os
import sys

import dbus
import dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

address, tree, log = sys.argv[1:]
NAME = "org.freedesktop.systemd1"
MANAGER = NAME + ".Manager"
scopes = {}
jobs = 0


def plain(v):
    if isinstance(v, dbus.Boolean):
        return bool(v)
    if isinstance(v, (list, dbus.Array)):
        return [plain(x) for x in v]
    return int(v) if isinstance(v, int) else str(v)


def note(call, **what):
    with open(log, "a", encoding="utf-8") as f:
        f.write(json.dumps({"call": call, **what}) + "\n")


def slice_path(name):
    if name == "-.slice":
        return ""
    stem = name[:-len(".slice")].split("-")
    return "/".join("-".join(stem[:i + 1]) + ".slice" for i in range(len(stem)))


class Manager(dbus.service.Object):
    @dbus.service.signal(MANAGER, signature="uoss")
    def JobRemoved(self, job, path, unit, result):
        pass

    def job_for(self, unit, result):
        global jobs
        jobs += 1
        number, path = jobs, f"/org/freedesktop/systemd1/job/{jobs}"
        GLib.timeout_add(20, lambda: self.JobRemoved(number, path, unit, result))
        return dbus.ObjectPath(path)

    @dbus.service.method(MANAGER)
    def Subscribe(self):
        pass

    @dbus.service.method(MANAGER, in_signature="ssa(sv)a(sa(sv))", out_signature="o")
    def StartTransientUnit(self, unit, mode, properties, _aux):
        p = {str(k): plain(v) for k, v in properties}
        note("start", unit=str(unit), mode=str(mode), properties=p)
        if unit.endswith("refused.scope"):
            raise dbus.exceptions.DBusException("Unit exists already", name=NAME + ".UnitExists")
        if unit.endswith("failing.scope"):
            return self.job_for(unit, "failed")
        path = f"{tree}/{slice_path(p['Slice'])}/{unit}"
        os.makedirs(path, exist_ok=True)
        for pid in p["PIDs"]:
            with open(path + "/cgroup.procs", "w", encoding="ascii") as f:
                f.write(str(pid))
        scopes[str(unit)] = path
        return self.job_for(unit, "done")

    @dbus.service.method(MANAGER, in_signature="sba(sv)")
    def SetUnitProperties(self, unit, runtime, properties):
        note("set", unit=str(unit), runtime=bool(runtime), properties={str(k): plain(v) for k, v in properties})

    @dbus.service.method(MANAGER, in_signature="ss", out_signature="o")
    def StopUnit(self, unit, mode):
        note("stop", unit=str(unit), mode=str(mode))
        path = scopes.pop(str(unit), None)
        if path is None:
            raise dbus.exceptions.DBusException(f"Unit {unit} not loaded.", name=NAME + ".NoSuchUnit")
        while path != tree:
            try:
                os.rmdir(path)
            except OSError:
                break
            path = os.path.dirname(path)
        return self.job_for(unit, "done")


DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(address)
name = dbus.service.BusName(NAME, bus)
manager = Manager(bus, "/org/freedesktop/systemd1")
note("ready")
GLib.MainLoop().run()
