"""A film with a generated voice in step with its picture. Read dubbing first."""
