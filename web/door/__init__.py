"""The short way in: plain POSTs to the inference routes are answered without aiohttp, everything else goes on to it, byte for byte."""
