"""§3.3-3.4: media files to faces and spectrograms, and back to sound. Read: clips, sandbox, faces, spectrograms."""
