"""AWS on this machine, for `pulumi up --stack sandbox`: moto's server. It keeps everything in memory, until it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

from runbooks.model.errors import SandboxFault, ToolMissing
from runbooks.sandbox.processes import LOCALHOST, is_free

PORT = 5055
"""As Pulumi.sandbox.yaml has it."""


def serve(ready: Callable[[str], None], *, port: int = PORT) -> None:
    """Answer until interrupted; `ready` is given the URL first. Raises ToolMissing without moto, SandboxFault.

    One request at a time, as moto's state bears no more.
    """
    try:
        from moto.core.config import default_user_config
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server
    except ImportError as error:
        raise ToolMissing(
            f"the stand-in for AWS is not installed ({error.name})",
            safe="nothing was started",
            next_step="pip install 'moto>=5.2' flask flask-cors into this environment, or make test, which does",
        ) from error
    for service in ("lambda", "batch"):  # with Docker, and no daemon, they would say 200 and have run nothing
        default_user_config[service] = {"use_docker": False}
    if not is_free(port):  # werkzeug would end the program
        raise SandboxFault(
            f"port {port} of this machine is taken",
            safe="nothing was started",
            next_step="if another invoke sandbox.aws holds it, use that one; else end what does",
        )
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request is nothing for people
    with make_server(LOCALHOST, port, DomainDispatcherApplication(create_backend_app), threaded=False) as server:
        ready(f"http://{LOCALHOST}:{server.server_port}")
        server.serve_forever()
