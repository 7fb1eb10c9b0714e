#!/bin/bash
# The first process in the namespaces of systemd.sh: mounts what systemd expects of a container, and becomes it.
set -eu
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
while read -r node major minor; do
    mknod -m 666 "$root/dev/$node" c "$major" "$minor"
done <<NODES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
NODES
ln -s /proc/self/fd "$root/dev/fd"
hostname longshore-test
ip link set lo up 2>/dev/null || true
# Not only a changed root: services with folders of their own could not be made under one.
mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
exec chroot . /usr/bin/env -i container=longshore PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /bin/sh -c 'umount -l /.old && rmdir /.old && exec /lib/systemd/systemd --unit=proof.service'
