"""What `pulumi up` provisions. Components are composed in `infra.program` and nowhere else."""

import pulumi

from infra.program import provision
from infra.settings import Settings
from runbooks.model.errors import PolicyFault

try:
    provision(Settings.read(pulumi.Config("bloom-dr"), pulumi.get_stack()))
except PolicyFault as fault:
    raise pulumi.RunError(f"{fault.happened}\nsafe: {fault.safe}\nnext: {fault.next_step}") from None
