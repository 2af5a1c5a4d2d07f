"""A reader with nothing but pyzmq and what the crate's documentation says of the wire.

    plain_subscriber.py HOST PORT KEY NONCE RANK

Key and nonce are in hexadecimal. It claims the rank, reads every message until the end, checks every tag and number, and
prints for each message its number, its length and its SHA-256.
"""

import hashlib
import hmac
import itertools
import os
import struct
import sys

import zmq

CHALLENGE, WELCOME, REFUSED, COMPLETE, DATA, END = range(1, 7)
# How long each try may take; the short ones are for a publisher that is quiet for a moment.
PATIENCE_MS = 30, 60, 90, 500, 30, 60, 90, 2000
HEADER = struct.Struct("<8sB7x16sQQQQ")


class Reader:
    def __init__(self, host, port, key, nonce, rank):
        self.key, self.nonce = key, nonce
        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.ipv6 = ":" in host
        self.socket.rcvtimeo = 10_000
        self.socket.connect(f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}")
        self.acknowledged = None
        # A publisher that is busy may leave a hello without an answer: it is to be said again.
        next(filter(None, (self.come_in(rank, patience) for patience in itertools.cycle(PATIENCE_MS))))
        self.socket.rcvtimeo = 10_000
        self.acknowledge()

    def come_in(self, rank, patience):
        """One try, as a session of its own: whether it is welcome."""
        self.session, self.challenge = os.urandom(16), b""
        self.socket.rcvtimeo = patience
        hello = b"unisono1h" + self.session
        self.socket.subscribe(hello)
        try:
            _, payload = self.receive(CHALLENGE)
            self.challenge = payload[16:32]
            self.say(b"j", struct.pack("<QI", rank, os.getpid()))
            _, payload = self.receive(WELCOME)
        except zmq.Again:
            self.socket.unsubscribe(hello)
            return False
        assert payload[:32] == self.session + self.challenge
        self.parts, self.messages = struct.unpack_from("<QQ", payload, 44)
        return True

    def tag(self, *parts):
        return hmac.new(self.key, b"".join(parts), hashlib.sha256).digest()

    def say(self, letter, body=b""):
        word = b"unisono1" + letter + self.session + body
        word += self.tag(word, self.nonce, self.challenge)
        self.socket.subscribe(word)
        return word

    def acknowledge(self):
        before, self.acknowledged = self.acknowledged, self.say(
            b"a", struct.pack("<QQ", self.parts, self.messages)
        )
        if before:
            self.socket.unsubscribe(before)

    def receive(self, *kinds):
        while True:
            topic, header, payload, tag = self.socket.recv_multipart()
            assert topic == b"unisono1h" + self.session
            assert hmac.compare_digest(tag, self.tag(header, payload)), "another key"
            magic, kind, nonce, part, message, offset, length = HEADER.unpack(header)
            assert (magic, nonce) == (b"unisono\x01", self.nonce)
            if kind in kinds:
                return (kind, part, message, offset, length), payload
            assert kind == COMPLETE, kind

    def read(self):
        """The messages, until the end."""
        message = bytearray()
        while True:
            (kind, part, number, offset, length), payload = self.receive(DATA, END)
            assert (part, number) == (self.parts, self.messages), "one is missing"
            self.parts += 1
            if kind == END:
                self.acknowledge()
                return
            assert offset == len(message)
            message += payload
            if len(message) == length:
                self.messages += 1
                yield number, bytes(message)
                message.clear()
            self.acknowledge()


def main():
    host, port, key, nonce, rank = sys.argv[1:]
    reader = Reader(host, port, bytes.fromhex(key), bytes.fromhex(nonce), int(rank))
    for number, message in reader.read():
        print(number, len(message), hashlib.sha256(message).hexdigest(), flush=True)
    print("end", flush=True)
    reader.say(b"b")


main()
