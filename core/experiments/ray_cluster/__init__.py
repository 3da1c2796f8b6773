"""Training on a Ray cluster: connect and check its machines, a worker on each, the driver here.

Ray is imported in this package alone. Read: connection, worker, driver.
"""
