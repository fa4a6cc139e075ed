"""The Pulumi program. It declares nothing yet: the runbooks of the sandbox need no cloud."""
