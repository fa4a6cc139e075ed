"""The language host: runs the program for the engine, as Pulumi's own would, which is not at hand as a module.

Imports nothing of ours: it is run by its path, so that the program sees only what is installed.
"""

from __future__ import annotations

import os
import runpy
import sys
from concurrent import futures
from pathlib import Path
from threading import Event
from typing import Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.errors import RunError
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2


class Language(LanguageServer):
    def __init__(self) -> None:
        super().__init__(lambda: None)

    def Handshake(self, request: Any, context: Any) -> Any:
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="0.0.1")

    def Run(self, request: Any, context: Any) -> Any:
        info = request.info

        def program() -> None:
            asked = Path(info.root_directory, dict(info.options)["virtualenv"])
            if asked.resolve() != Path(sys.prefix).resolve():
                raise RunError(f"Pulumi.yaml wants the packages of {asked}, and these are those of {sys.prefix}")
            os.chdir(request.pwd)
            runpy.run_path(str(Path(info.program_directory, info.entry_point)), run_name="__main__")

        self.program = program
        return super().Run(request, context)


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(Language(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)  # noqa: T201
    server.start()
    try:
        Event().wait()
    except KeyboardInterrupt:
        server.stop(0)


if __name__ == "__main__":
    main()
