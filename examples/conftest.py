# Django's settings are one for each process, and other tests have theirs: test_examples.py starts this one by itself.
collect_ignore = ["django_sessions/test_example.py"]
