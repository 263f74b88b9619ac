# shellcheck shell=sh disable=SC2034 # what is set here is for those who source it
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Debian packages by what needs them, and how to have them.  Sourced by scripts/check and scripts/demo.

# to build the programs and the manual
packages_build='
	autoconf automake libtool make pkg-config gcc libc6-dev binutils
	libglib2.0-dev libjson-glib-dev liburing-dev libxxhash-dev libnl-3-dev
	libnl-route-3-dev systemtap-sdt-dev'

# to migrate a guest into them
packages_guest='
	python3 qemu-system-x86'

# to test them in every way; libcriterion-dev brings the unit tests, libseccomp-dev poorer kernels, clang the sanitizers and the fuzzer,
# dpdk-dev a vhost-user back-end, libelf1 is for the tools that build a module of the kernel's
packages_check='
	git g++ clang libclang-rt-14-dev llvm libcriterion-dev libseccomp-dev shellcheck universal-ctags
	groff man-db iproute2 qemu-utils xz-utils dpdk-dev libelf1'

# packages_missing PACKAGE...: those that are not installed
packages_missing()
{
	for package; do
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
			echo "$package"
	done
}

apt_get()
{
	DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null
}

# packages_need PACKAGE...: install what is missing, quick where nothing is
packages_need()
{
	missing=$(packages_missing "$@" | tr '\n' ' ')
	[ -n "$missing" ] || return 0
	echo "installing: $missing"
	[ "$(id -u)" -eq 0 ] || { echo "only root can install them" >&2; return 1; }
	apt_get update || return 1
	# shellcheck disable=SC2086 # a list of words
	apt_get install -y --no-install-recommends $missing
}
