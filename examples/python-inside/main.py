# What a Python function sees of the machine that it runs on: next to nothing.
#
#   lyra deploy examples/python-inside
#   lyra invoke python-inside
import os
import socket


def may_write(directory):
    try:
        with open(f"{directory}/probe", "w"):
            return True
    except OSError:
        return False


def handler(event, context):
    return {
        "processes": sum(name.isdigit() for name in os.listdir("/proc")),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "writable": [directory for directory in ["/", "/etc", "/usr", "/var/task", "/tmp"] if may_write(directory)],
    }
