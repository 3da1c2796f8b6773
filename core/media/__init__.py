"""§3.3-3.4: media files to faces and spectrograms, and back to sound.

Read: containers, clips, sandbox, probe; faces; spectrograms, waveforms, vocoder.
"""
