"""Carries out any runbook: survey, plan, consent, execute, prove. Knows steps and journals, not Neon or S3."""
