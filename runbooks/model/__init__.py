"""The words of the domain as types. Pure: no network, no files but the one policy file, no clock of its own."""
