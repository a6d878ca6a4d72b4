"""Shapes of load for people to watch. Each goes beside the users:

``locust -f loadtests/locustfile.py,loadtests/shapes/ramp.py --host http://127.0.0.1:8000``
"""
