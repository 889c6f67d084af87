"""Engines in processes of their own: a crash there fails one attempt, not the application.

The application's side is `worker_process.WorkerProcess`; the worker's side runs an `engine.Engine`. This module imports
neither, because each is started without the other.
"""
