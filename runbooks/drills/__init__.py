"""The tests of a drill, one module each: real runbooks on a stack that the drill made for itself."""
