"""§4.3-4.7: one run of the paper, many runs on one machine or a Ray cluster, and the vocoder.

Read: pipeline, classifier_fitting, condition_vectors, gan_training; sweep, jobs, tasks.
"""
