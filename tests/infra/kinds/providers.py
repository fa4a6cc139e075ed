"""A provider that the program makes itself, for another account. moto has only one account: it changes nothing."""

from __future__ import annotations

from tests.infra.kinds import kind

kind("pulumi:providers:aws", create=lambda cloud, inputs: ("there", {}))
