#!/bin/bash
# Proves the units of `longshore agent service unit` and `longshore server service unit` against a real systemd.
#
#   systemd.sh verify            both units through `systemd-analyze verify`
#   systemd.sh boot [SUITE]      starts Debian's own systemd (default: of trixie) in namespaces of its own, with RabbitMQ, a server and an
#                                agent as services, and runs scripts/systemd/inside.sh under it
#   systemd.sh machine [SUITE]   systemd in a virtual machine with Debian's kernel, which has every controller of control groups: the
#                                agent's own tests of them, in a unit that delegates, and what `boot` proves, with the limits of steps;
#                                with BOOT_SERVICES=no the tests alone
#   systemd.sh clean             removes the Debian that these two keep
#
# The tests are those of `cargo test -p agent --test attempt --no-run`, or the program that ATTEMPT_TESTS names.
# `boot` and `machine` need root and debootstrap, `machine` qemu-system-x86_64 and cpio besides, and install what is missing. Everything in them is
# made from packages of Debian, kept under .cache/systemd. They have no network, and change nothing else of this machine. The processor
# of the virtual machine is emulated, so that it runs anywhere; it takes about five minutes of a core. BOOT_ACCEL=kvm is several
# times as fast where that works. BOOT_SECONDS (3600) ends what hangs.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${LONGSHORE_BIN:-target/debug/longshore}
scripts=chaos-tests/scripts/systemd

die() { echo "systemd.sh: $*" >&2; exit 1; }
[ -x "$bin" ] || [ "${1:-}" = clean ] || die "$bin is not built; run: cargo build -p cli"

units() { # FOLDER PROGRAM USER
    "$bin" agent service unit --program "$2" --user "$3" >"$1/longshore-agent.service" 2>/dev/null
    "$bin" server service unit --program "$2" --user "$3" >"$1/longshore-server.service" 2>/dev/null
}

verify() {
    command -v systemd-analyze >/dev/null || { echo "skipped: there is no systemd-analyze"; return; }
    local dir said
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' RETURN
    units "$dir" "$(realpath "$bin")" root
    for unit in longshore-agent longshore-server; do
        said=$(systemd-analyze verify --man=no "$dir/$unit.service" 2>&1) || die "$unit: $said"
        # Older versions know no subgroups, and say so; nothing else may be said of these units.
        said=$(grep "$unit" <<<"$said" | grep -v "'DelegateSubgroup'.*ignoring" || true)
        [ -z "$said" ] || die "$said"
        echo "ok: $unit.service, $(systemctl --version | head -n 1)"
    done
}

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null && return
    echo "installing $2"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" >/dev/null || die "$2 cannot be installed"
}

# The file system of the machine, from packages alone.
system() { # SUITE FOLDER
    [ -e "$2/.complete" ] && return
    rm -rf "$2"
    echo "making Debian $1 from its packages"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,rabbitmq-server,linux-image-cloud-amd64 "$1" "$2" \
        >"$2.log" 2>&1 || die "debootstrap failed; see $2.log"
    touch "$2/.complete"
}

# The file system, and what differs from run to run to lie over it: sets `root` and `over`.
prepare() { # SUITE CONSOLE
    local cache
    [ "$(id -u)" = 0 ] || die "making a file system needs root"
    need debootstrap debootstrap
    cache=$(realpath -m "${SYSTEMD_CACHE:-.cache/systemd}")
    mkdir -p "$cache"
    root=$cache/$1
    system "$1" "$root"
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    over=$out/over
    mkdir -p "$over/opt/longshore" "$over/etc/systemd/system" "$over/etc/rabbitmq"
    cp "$bin" "$over/opt/longshore/longshore"
    cp "$scripts/inside.sh" "$over/opt/longshore/"
    cp "$scripts/proof.service" "$scripts/groups.service" "$over/etc/systemd/system/"
    # Without spinning, which an emulated processor pays dearly for.
    echo 'SERVER_ADDITIONAL_ERL_ARGS="+sbwt none +sbwtdcpu none +sbwtdio none"' >"$over/etc/rabbitmq/rabbitmq-env.conf"
    local tests=${ATTEMPT_TESTS:-$(find target/debug/deps -name 'attempt-*' -type f -executable -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d' ' -f2)}
    if [ -n "$tests" ]; then cp "$tests" "$over/opt/longshore/attempt"; else echo "without the tests of control groups, which are not built"; fi
    units "$over/etc/systemd/system" /opt/longshore/longshore ops
    echo longshore-test >"$over/etc/hostname"
    echo "127.0.0.1 localhost longshore-test" >"$over/etc/hosts"
    echo "$2" >"$over/opt/longshore/console"
}

judge() { # CONSOLE
    cp "$1" "$root.console"
    grep -aq '^PROOF done' "$1" || die "it did not come to its end; what it printed is in $root.console"
    ! grep -aq '^PROOF FAIL' "$1" || die "something is not as it should be; what it printed is in $root.console"
    echo PASS
}

# Ends what `boot` has started, and removes what it has made. Runs when that function is over: none of its variables is local there.
leave() {
    set +e
    umount -l "$out/root" 2>/dev/null
    echo 1 >"$group/cgroup.kill"
    while grep -q 'populated 1' "$group/cgroup.events"; do sleep 0.1; done
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    rm -rf "$out"
}

boot() {
    local unified
    prepare "${1:-trixie}" /opt/longshore/log
    touch "$over/opt/longshore/services"
    unified=$(awk '$0 ~ / - cgroup2 / { print $5; exit }' /proc/self/mountinfo)
    [ -n "$unified" ] || die "no hierarchy of control groups of version 2 is mounted here"
    group=$unified/$(sed -n 's/^0:://p' /proc/self/cgroup)/systemd-proof-$$
    mkdir "$group" "$out/work" "$out/root"
    trap leave EXIT
    trap 'exit 130' INT TERM
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$over,workdir=$out/work" "$out/root" || die "there is no overlay file system"
    echo "starting systemd of ${1:-trixie} in namespaces"
    : >"$over/opt/longshore/log"
    # Devices are not its own.
    ln -s /dev/null "$over/etc/systemd/system/systemd-udevd.service"
    # shellcheck disable=SC2016
    timeout --signal=KILL "${BOOT_SECONDS:-900}" bash -c 'echo $$ >"$1/cgroup.procs"
        exec unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup bash "$2" "$3"' \
        x "$group" "$scripts/namespaces.sh" "$out/root" >"$out/start" 2>&1 </dev/null || true
    cat "$out/start" "$out/root/opt/longshore/log" >"$out/console" 2>/dev/null || true
    sed -n 's/\r$//; /^PROOF/p' "$out/console"
    judge "$out/console"
}

machine() {
    local kernel image
    need qemu-system-x86_64 qemu-system-x86
    need cpio cpio
    prepare "${1:-trixie}" /dev/ttyS0
    [ "${BOOT_SERVICES:-yes}" = no ] || touch "$over/opt/longshore/services"
    kernel=$(ls "$root"/boot/vmlinuz-* | tail -n 1)
    image=$out/image
    (cd "$root" && find . -path ./boot -prune -o -path ./usr/lib/modules -prune -o -path ./var/cache -prune -o -path ./var/lib/apt -prune \
        -o -path ./usr/share/doc -prune -o -path ./usr/share/locale -prune -o -print | cpio -o -H newc --quiet) >"$image"
    (cd "$over" && find . | cpio -o -H newc --quiet) >>"$image"
    echo "booting ${1:-trixie} with $(basename "$kernel")"
    : >"$out/console"
    # An emulated processor is slow: the kernel is not to conclude from that that its timer is broken. More processors than this
    # script may use would wait for each other.
    timeout "${BOOT_SECONDS:-3600}" qemu-system-x86_64 -accel "${BOOT_ACCEL:-tcg}" -m "${BOOT_MIB:-4096}" -smp "$(nproc)" -nographic \
        -no-reboot -nodefaults -serial stdio -kernel "$kernel" -initrd "$image" \
        -append "console=ttyS0 rdinit=/lib/systemd/systemd no_timer_check panic=-1 systemd.show_status=no systemd.unit=proof.service" \
        </dev/null >"$out/console" 2>&1 &
    vm=$!
    # Also if one of these has nothing to do any more.
    trap 'set +e; kill "$vm" 2>/dev/null; wait "$vm" 2>/dev/null; rm -rf "$out"' EXIT
    trap 'exit 130' INT TERM
    # What is proved, as it is proved.
    tail -n +1 -f --pid="$vm" "$out/console" | sed -un 's/\r$//; /^PROOF/p' &
    wait
    judge "$out/console"
}

case ${1:-} in
    verify) verify ;;
    boot) verify; boot "${2:-}" ;;
    machine) verify; machine "${2:-}" ;;
    clean) rm -rf "${SYSTEMD_CACHE:-.cache/systemd}" ;;
    *) sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
