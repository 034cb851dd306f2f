"""A bad wire: carries frames between two network interfaces, late, and not all of them. It ends with its standard input.

usage: wire.py ONE OTHER DELAY_MILLIS LOSS_PERCENT SEED
"""

import collections
import random
import select
import socket
import sys
import time

ALL, SOL_PACKET, PACKET_VNET_HDR, OUTGOING = 3, 263, 15, 4
SO_RCVBUFFORCE = 33


def end(name):
    """A socket that gets and gives whole frames of an interface.

    Frames that the network card would have cut or summed up carry a note that says so: it is handed on with them.
    """
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    opened.bind((name, ALL))
    opened.setblocking(False)
    return opened


def main():
    one, other = end(sys.argv[1]), end(sys.argv[2])
    delay, loss, chance = float(sys.argv[3]) / 1e3, float(sys.argv[4]) / 1e2, random.Random(int(sys.argv[5]))
    across = {one: other, other: one}
    under_way = collections.deque()
    print("ready", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for readable in select.select([one, other, sys.stdin], [], [], wait)[0]:
            if readable is sys.stdin:
                return
            try:
                frame, source = readable.recvfrom(1 << 17)
            except OSError:
                continue
            if source[2] != OUTGOING and chance.random() >= loss:
                under_way.append((time.monotonic() + delay, across[readable], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, to, frame = under_way.popleft()
            try:
                to.send(frame)
            except OSError:
                pass  # The other side is down, or has no room: lost, as on any wire.


main()
