#!/bin/sh
# configure-instance.sh [NAME]: gives services of an instance that run in the queue directory
# (column chroot of master.cf) the files of the system that they need there.  "-" or nothing: the
# primary instance.
#
# /etc/default/postfix may set SYNC_CHROOT="" to leave the directory alone, and
# chroot_extra_files, paths of further files.
set -e
umask 022
instance=${1:--}
SYNC_CHROOT=y
chroot_extra_files=
[ ! -r /etc/default/postfix ] || . /etc/default/postfix
[ -n "$SYNC_CHROOT" ] || exit 0

settings=$(/usr/sbin/postmulti -i "$instance" -x \
    /usr/sbin/postconf -hx queue_directory local_recipient_maps)
queue=$(echo "$settings" | sed -n 1p)
[ -n "$queue" ] || exit 1
# The columns: service type private unprivileged chroot ...
/usr/sbin/postmulti -i "$instance" -x /usr/sbin/postconf -Fh '*/*/chroot' |
    grep -qx '[yY]' || exit 0

# give FILE: a copy that is the same as /FILE, replaced in one step.
give() {
    [ -f "/$1" ] || return 0
    cmp -s "/$1" "$queue/$1" && return 0
    mkdir -p "$queue/$(dirname "$1")"
    cp "/$1" "$queue/$1.new"
    chmod 644 "$queue/$1.new"
    mv -f "$queue/$1.new" "$queue/$1"
}

for file in etc/localtime etc/services etc/resolv.conf etc/hosts etc/host.conf \
    etc/nsswitch.conf $chroot_extra_files; do
    give "${file#/}"
done

# libsasl2 seeds its random numbers there, and else with what is easier to guess.  Containers may
# not make devices.
if [ ! -c "$queue/dev/urandom" ]; then
    mkdir -p "$queue/dev"
    cp -a /dev/urandom "$queue/dev/urandom" 2>/dev/null || true
fi

# A table unix:passwd.byname is asked in the jail: names alone, no more.
case $(echo "$settings" | sed -n 2p) in
*proxy:unix:passwd.byname*) ;;
*unix:passwd.byname*)
    sed 's/^\([^:]*\):[^:]*/\1:x/' /etc/passwd >"$queue/etc/passwd.new"
    chmod 644 "$queue/etc/passwd.new"
    mv -f "$queue/etc/passwd.new" "$queue/etc/passwd" ;;
esac
