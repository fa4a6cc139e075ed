"""What `pulumi up` provisions. Components are composed here and nowhere else."""
