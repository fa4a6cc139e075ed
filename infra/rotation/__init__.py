"""The function that gives DATABASE_URL a new password. It runs at AWS, alone: the standard library, pg8000, and the
boto3 that AWS Lambda brings. Nothing else of this project is imported here."""
