"""What the image of the Dockerfile and the stack that runs it agree on."""

from __future__ import annotations

SCRATCH = "/scratch"
"""The only folder that can be written: journals, dumps on their way, throw-away servers. Gone with the container."""
USER = 10001
"""Who everything runs as."""
KEY_TEXT = "BLOOM_DR_KEY_TEXT"
"""The variable that a private key comes in. It is put into a file, and nothing that runs later has it around it."""
