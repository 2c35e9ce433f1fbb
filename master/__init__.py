"""The root process: master.cf into sockets, children and limits. Start reading at `__main__`.

endpoints   listening sockets
capacity    how many processes, for how many clients (pure)
throttle    when a service that crashes has to wait (pure)
children    the processes: fork, exec, status messages
services    one service of master.cf: its sockets, children, wake-ups
supervisor  the loop: sockets, timers, signals
lock        pid file and lock files
detach      becoming a daemon
preload     what must be in memory before a fork
"""
