"""The command line as its user meets it: real `invoke` processes against a real local stack."""
