# Captures what only the running host can tell, in the order of volatility, and puts it where the URLs lead.
#
# Plain POSIX sh for dash, bash and busybox, as root or not; whatever is missing is recorded as missing. The settings are
# environment variables: SSM_Part (triage or memory), SSM_Seconds, SSM_TriageUrl and SSM_SummaryUrl (triage), SSM_PlanUrl
# and SSM_PlanSha256 (memory). Standard output has lines that begin with "cordon" and nothing else; the exit code is 0
# only where everything asked for has been uploaded. The host is not trusted: nothing that is read here is ever run,
# interpolated or printed, it only goes into files.
set -u
LC_ALL=C TZ=UTC
export LC_ALL TZ
umask 077

FILE_LIMIT=8388608       # bytes of one file
TOTAL_LIMIT=100663296    # bytes of all files before compression
COMMAND_SECONDS=20       # seconds of one command
started=$(date +%s)
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
seconds=${SSM_Seconds:-300}
work=
tool=

have() { command -v "$1" >/dev/null 2>&1; }
tell() { printf 'cordon %s\n' "$*"; }
left() { echo $((started + seconds - $(date +%s))); }

clean_up() {
  [ -z "$work" ] || rm -rf "$work"
  work=
}
trap '[ -z "$tool" ] || kill_tree "$tool"; clean_up' EXIT
trap 'exit 143' HUP INT TERM

# Ends with a word that whoever asked knows the meaning of: "problem" is a failure, "unsupported" what cannot be had here.
give_up() {
  tell "$1" "$2"
  exit 1
}

# A private folder of our own, in memory if there is room: the disk is evidence too. $1: how many KiB, $2: "exec" where
# a program has to run from it.
private_folder() {
  for try in 1 2; do
    for parent in /dev/shm /run /tmp /var/tmp; do
      [ -d "$parent" ] && [ -w "$parent" ] || continue
      # First round: only what is in memory.
      [ "$try" = 2 ] || grep -q "^[^ ]* $parent tmpfs " /proc/mounts 2>/dev/null || continue
      room "$parent" "$1" || continue
      work=$(mktemp -d "$parent/cordon.XXXXXXXX" 2>/dev/null) || { work=$parent/cordon.$$.$started && mkdir "$work" 2>/dev/null; } || { work= && continue; }
      [ "${2:-}" = exec ] || return 0
      printf '#!/bin/sh\nexit 0\n' >"$work/probe" && chmod 700 "$work/probe" && "$work/probe" 2>/dev/null && return 0
      clean_up
    done
  done
  give_up problem no-folder
}

# The agent ends a command that is cancelled outright: then somebody outside its process group removes the folder.
leave_nothing() {
  have setsid || return 0
  setsid sh -c 'while kill -0 "$1"; do sleep 2; done; rm -rf "$2"' cordon "$$" "$work" </dev/null >/dev/null 2>&1 &
}

# Whether a folder has so many KiB left; where nobody can tell, it has.
room() {
  have df || return 0
  set -- "$2" $(df -Pk "$1" 2>/dev/null | tail -n 1)
  [ $# -ge 5 ] || return 0
  case $5 in *[!0-9]*) return 0 ;; esac
  [ "$5" -ge "$1" ]
}

# --- Hashes and uploads -----------------------------------------------------------------------------------------------

# A Python of any version. Not called python: command -v finds functions too.
interpreter() {
  for one in python3 /usr/libexec/platform-python python; do
    have "$one" && { echo "$one"; return 0; }
  done
  return 1
}

# SHA-256 of standard input, in hexadecimal digits.
sha256() {
  if have sha256sum; then set -- $(sha256sum)
  elif have shasum; then set -- $(shasum -a 256)
  elif have openssl; then set -- $(openssl dgst -sha256 -r)
  elif one=$(interpreter); then set -- $("$one" -c 'import hashlib,sys
h = hashlib.sha256()
for block in iter(lambda: getattr(sys.stdin, "buffer", sys.stdin).read(1 << 20), b""): h.update(block)
print(h.hexdigest())')
  else return 1; fi
  echo "${1:-}"
}

# MD5 of standard input in base64, as Content-MD5 has it: a bucket with Object Lock refuses an upload without.
md5_base64() {
  if have md5sum && { have base64 || have openssl; }; then
    set -- $(md5sum)
    digits=$1
    while [ -n "$digits" ]; do
      rest=${digits#??}
      printf "\\$(printf %03o "0x${digits%"$rest"}")"
      digits=$rest
    done | if have base64; then base64; else openssl enc -base64; fi
  elif have openssl; then openssl dgst -md5 -binary | openssl enc -base64
  elif one=$(interpreter); then "$one" -c 'import base64,hashlib,sys
h = hashlib.md5()
for block in iter(lambda: getattr(sys.stdin, "buffer", sys.stdin).read(1 << 20), b""): h.update(block)
print(base64.b64encode(h.digest()).decode())'
  else return 1; fi
}

size_of() { echo $(($(wc -c <"$1"))); }

can_upload() { have curl || interpreter >/dev/null || { have wget && wget --help 2>&1 | grep -q -e --body-file; }; }

# One PUT of a file. $1 file, $2 URL, $3 Content-MD5, $4 "once" where the URL is signed to write only what is not there.
# Says the HTTP status, 000 where there was none.
put_once() {
  limit=$(left)
  [ "$limit" -gt 0 ] || { echo 000; return; }
  if have curl; then
    if [ "$4" = once ]; then set -- "$@" -H 'If-None-Match: *'; fi
    file=$1 url=$2 md5=$3
    shift 4
    curl -g -s -o /dev/null -w '%{http_code}' --connect-timeout 10 --max-time "$limit" -H 'Expect:' \
      -H "Content-MD5: $md5" "$@" -T "$file" "$url" || true
  elif one=$(interpreter); then
    "$one" -c 'import os,sys
try:
    from urllib.request import Request, urlopen
    from urllib.error import HTTPError
except ImportError:
    from urllib2 import Request, urlopen, HTTPError
path, url, md5, once, limit = sys.argv[1:]
body = open(path, "rb")
head = {"Content-MD5": md5, "Content-Length": str(os.path.getsize(path)), "Content-Type": ""}
if once == "once": head["If-None-Match"] = "*"
request = Request(url, data=body, headers=head)
request.get_method = lambda: "PUT"
try: print("%03d" % urlopen(request, timeout=int(limit)).getcode())
except HTTPError as error: print("%03d" % error.code)
except Exception: print("000")' "$1" "$2" "$3" "$4" "$limit"
  else
    if [ "$4" = once ]; then set -- "$@" '--header=If-None-Match: *'; fi
    file=$1 url=$2 md5=$3
    shift 4
    if wget -q -O /dev/null --tries=1 --timeout="$limit" --method=PUT "--body-file=$file" "--header=Content-MD5: $md5" "$@" "$url"
    then echo 200
    else echo 000; fi
  fi
}

# Uploads a file, three times at most. A second try that finds the object there has lost the answer of the first.
put() {
  digest=$(md5_base64 <"$1") || give_up unsupported no-hash
  for try in 1 2 3; do
    code=$(put_once "$1" "$2" "$digest" "$3")
    case $try$code in
      ?2??) return 0 ;;
      [23]412) return 0 ;;
      1412) return 1 ;;
      ?4??) return 1 ;;
    esac
    sleep 2
  done
  return 1
}

# Downloads what a URL leads to. $1 URL, $2 file.
get() {
  limit=$(left)
  [ "$limit" -gt 0 ] || return 1
  if have curl; then curl -g -s -f --connect-timeout 10 --max-time "$limit" -o "$2" "$1"
  elif one=$(interpreter); then
    "$one" -c 'import shutil,sys
try: from urllib.request import urlopen
except ImportError: from urllib2 import urlopen
with open(sys.argv[2], "wb") as out: shutil.copyfileobj(urlopen(sys.argv[1], timeout=int(sys.argv[3])), out)' "$1" "$2" "$limit" 2>/dev/null
  else wget -q --tries=1 --timeout="$limit" -O "$2" "$1"; fi
}

# --- Bounded commands -------------------------------------------------------------------------------------------------

turn=0
total=0

# A process and all that it has started.
kill_tree() (
  children=$(cat "/proc/$1/task/"*/children 2>/dev/null)
  kill -KILL "$1" 2>/dev/null
  for child in $children; do kill_tree "$child"; done
)

# Runs a command or a function of this script; its output becomes one file of the archive.
# The one that ends first, the command or the clock, writes into the pipe: a command that not even SIGKILL ends, on a
# dead network file system for one, holds nobody up.
collect() {
  name=$1
  shift
  turn=$((turn + 1))
  allowed=$(left)
  [ "$allowed" -le "$COMMAND_SECONDS" ] || allowed=$COMMAND_SECONDS
  if [ "$allowed" -le 0 ] || [ "$total" -ge "$TOTAL_LIMIT" ]; then
    remember "$name" skipped 0 0
    return
  fi
  : >"$files/$name"
  at=$(date +%s)
  {
    (ulimit -f $((FILE_LIMIT / 512)) 2>/dev/null; "$@") </dev/null >"$files/$name" 2>&1 9>&-
    echo "$turn $?" >&9
  } &
  job=$!
  (
    sleep "$allowed" 9>&- &
    nap=$!
    trap 'kill "$nap"; exit' TERM
    wait "$nap"
    echo "$turn late" >&9
  ) </dev/null >/dev/null 2>&1 &
  clock=$!
  code=late
  while read -r number code <&9; do [ "$number" = "$turn" ] && break; done
  kill "$clock" 2>/dev/null
  case $code in
    late) kill_tree "$job"; status=timeout code=137 ;;
    0) status=ok ;;
    127) status=missing ;;
    153) status=truncated ;; # SIGXFSZ
    *) status=failed ;;
  esac
  size=$(size_of "$files/$name")
  [ "$size" -lt "$FILE_LIMIT" ] || status=truncated
  total=$((total + size))
  remember "$name" "$status" "$code" $(($(date +%s) - at))
}

# The name is one of ours, the rest are words and numbers of ours: nothing here needs escaping.
remember() {
  bytes=0 hash=
  [ ! -f "$files/$1" ] || { bytes=$(size_of "$files/$1"); hash=$(sha256 <"$files/$1"); }
  printf '%s{"Name":"%s","Status":"%s","Exit":%d,"Seconds":%d,"Size":%d,"Sha256":"%s"}' \
    "$comma" "$1" "$2" "$3" "$4" "$bytes" "$hash" >>"$work/list"
  comma=,
}

# --- What is collected ------------------------------------------------------------------------------------------------

# The first of several commands whose program is there. Each argument is one of our own command lines, never the host's.
first_of() {
  for line in "$@"; do
    have "${line%% *}" && { eval "$line"; return; }
  done
  return 127
}

# Every one of several commands whose program is there.
each_of() {
  found=127
  for line in "$@"; do
    have "${line%% *}" || { printf '== %s: missing\n' "${line%% *}"; continue; }
    found=0
    printf '== %s\n' "$line"
    eval "$line"
  done
  return "$found"
}

# The files that are there, one after the other.
show() {
  found=127
  for path in "$@"; do
    [ -f "$path" ] || continue
    found=0
    printf '== %s\n' "$path"
    cat "$path"
  done
  return "$found"
}

# The ends of files that are there.
show_ends() {
  found=127
  for path in "$@"; do
    [ -f "$path" ] || continue
    found=0
    printf '== %s\n' "$path"
    tail -c 1048576 "$path"
  done
  return "$found"
}

the_date() { date -u '+%Y-%m-%dT%H:%M:%SZ %s' && date && first_of 'timedatectl status' 'hwclock -r'; return 0; }
the_uptime() { show /proc/uptime /proc/loadavg /proc/stat; first_of 'uptime'; return 0; }
users() { each_of 'w' 'who -a' 'id' 'loginctl list-sessions --no-pager'; }
process_list() {
  ps -eo pid,ppid,pgid,sid,user,uid,lstart,etime,tty,stat,nice,rss,vsz,wchan:20,args -ww 2>/dev/null || ps -ef 2>/dev/null || ps 2>/dev/null
}
process_tree() { ps -eHo pid,ppid,user,args -ww 2>/dev/null || first_of 'pstree -palu' 'pstree -p'; }

# Straight from /proc: it needs no tool, and a changed ps does not hide from it what the kernel shows.
# A process that ends while it is looked at is no failure of these.
processes() {
  for folder in /proc/[0-9]*; do
    printf '== %s\n' "${folder#/proc/}"
    for link in exe cwd root; do printf '%s: %s\n' "$link" "$(readlink "$folder/$link" 2>/dev/null)"; done
    printf 'cmdline: '
    tr '\000' ' ' <"$folder/cmdline"
    printf '\n'
    grep -E '^(Name|State|Tgid|PPid|TracerPid|Uid|Gid|NSpid|CapEff|Seccomp):' "$folder/status"
    cat "$folder/cgroup" || :
  done 2>/dev/null
}
executables() {
  seen='|'
  for folder in /proc/[0-9]*; do
    path=$(readlink "$folder/exe" 2>/dev/null) || continue
    case $seen in *"|$path|"*) continue ;; esac
    seen="$seen$path|"
    printf '%s %s %s\n' "$(sha256 <"$folder/exe")" "${folder#/proc/}" "$path"
  done 2>/dev/null
}
open_files() {
  for folder in /proc/[0-9]*; do
    printf '== %s\n' "${folder#/proc/}"
    ls -lb "$folder/fd" || ls -l "$folder/fd" || :
  done 2>/dev/null
}
mapped_files() {
  for folder in /proc/[0-9]*; do
    printf '== %s\n' "${folder#/proc/}"
    grep -E '(r|-)(w|-)x' "$folder/maps" || :
  done 2>/dev/null
}
open_network_files() { first_of 'lsof -nP -i'; }
deleted_files() { first_of 'lsof -nP +L1'; }
connections() { first_of 'ss -tunapoe' 'netstat -tunap' 'netstat -an'; }
listeners() { first_of 'ss -tulnpe' 'netstat -tulnp' 'netstat -an'; }
other_sockets() { first_of 'ss -xpa' 'netstat -xp'; }
sockets_of_the_kernel() { show /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 /proc/net/raw /proc/net/raw6 /proc/net/packet /proc/net/unix; }
routes() { each_of 'ip route show table all' 'ip -6 route show table all' 'ip rule' 'route -n'; show /proc/net/route /proc/net/ipv6_route; }
neighbours() { each_of 'ip neigh' 'arp -an'; show /proc/net/arp; }
dns() { each_of 'resolvectl status --no-pager'; show /etc/resolv.conf /etc/hosts /etc/nsswitch.conf /run/systemd/resolve/resolv.conf; }
interfaces() { each_of 'ip -s addr' 'ifconfig -a'; show /proc/net/dev; }
firewall() { each_of 'nft list ruleset' 'iptables-save' 'ip6tables-save' 'conntrack -L'; }
modules() { each_of 'lsmod' 'uname -a' 'bpftool prog list' 'sysctl kernel.tainted'; show /proc/modules /proc/version /proc/cmdline /proc/sys/kernel/tainted /sys/kernel/security/lockdown; }
mounts() { show /proc/self/mountinfo /proc/swaps /proc/partitions /etc/fstab; }
space() { each_of 'df -Pk' 'df -Pi' 'lsblk -a -f' 'losetup -a'; }
scheduled() {
  each_of 'systemctl list-timers --all --no-pager' 'atq'
  for folder in /etc/cron.d /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly /var/spool/cron /var/spool/cron/crontabs /var/spool/at /etc/crontabs; do
    [ -d "$folder" ] || continue
    printf '== %s\n' "$folder"
    ls -la "$folder"
    show "$folder"/*
  done
  show /etc/crontab /etc/anacrontab /etc/rc.local /etc/ld.so.preload
  return 0
}
services() { first_of 'systemctl list-units --all --no-pager' 'rc-status -a' 'service --status-all'; }
logins() { each_of 'last -n 500 -Faiwx' 'last' 'lastb -n 500 -Faiwx' 'lastlog'; }
login_logs() { show_ends /var/log/auth.log /var/log/secure /var/log/audit/audit.log; }
login_records() { show_ends /var/run/utmp /var/log/wtmp /var/log/btmp; }
accounts() { show /etc/passwd /etc/group /etc/sudoers; for key in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do show "$key"; done; return 0; }
recent_logs() { first_of 'journalctl --no-pager -n 5000 -o short-iso' 'dmesg' 'logread'; }
cloud_init() { show /var/lib/cloud/instance/user-data.txt /var/lib/cloud/instance/vendor-data.txt /var/lib/cloud/instance/cloud-config.txt /var/lib/cloud/data/result.json /var/lib/cloud/data/status.json /run/cloud-init/instance-data.json; }
cloud_init_logs() { show_ends /var/log/cloud-init-output.log /var/log/cloud-init.log; }
cloud_init_scripts() { show /var/lib/cloud/instance/scripts/* /var/lib/cloud/scripts/*/*; }
containers() {
  each_of 'docker ps -a --no-trunc' 'docker images --no-trunc --digests' 'podman ps -a --no-trunc' 'nerdctl ps -a --no-trunc' \
    'crictl ps -a' 'ctr --namespace k8s.io containers list' 'ctr namespaces list'
}
memory() { each_of 'free -k'; show /proc/meminfo /proc/iomem /proc/vmstat /proc/swaps /proc/buddyinfo; }

triage() {
  { have sha256sum || have shasum || have openssl || interpreter >/dev/null; } || give_up unsupported no-hash
  { have md5sum && have base64; } || have openssl || interpreter >/dev/null || give_up unsupported no-hash
  { have tar && have gzip; } || give_up unsupported no-archiver
  can_upload || give_up unsupported no-uploader
  private_folder 229376
  leave_nothing
  files=$work/files comma=
  mkdir "$files" && : >"$work/list" && mkfifo "$work/pipe" || give_up problem no-folder
  exec 9<>"$work/pipe"

  collect 01-date.txt the_date
  collect 02-uptime.txt the_uptime
  collect 03-users.txt users
  collect 10-process-list.txt process_list
  collect 11-process-tree.txt process_tree
  collect 12-processes.txt processes
  collect 13-open-files.txt open_files
  collect 14-executables.txt executables
  collect 15-executable-mappings.txt mapped_files
  collect 16-deleted-open-files.txt deleted_files
  collect 20-connections.txt connections
  collect 21-listeners.txt listeners
  collect 22-network-files.txt open_network_files
  collect 23-other-sockets.txt other_sockets
  collect 24-kernel-sockets.txt sockets_of_the_kernel
  collect 30-routes.txt routes
  collect 31-neighbours.txt neighbours
  collect 32-dns.txt dns
  collect 33-interfaces.txt interfaces
  collect 34-firewall.txt firewall
  collect 40-kernel-modules.txt modules
  collect 41-mounts.txt mounts
  collect 42-space.txt space
  collect 50-scheduled.txt scheduled
  collect 51-services.txt services
  collect 60-logins.txt logins
  collect 61-login-logs.txt login_logs
  collect 62-login-records.bin login_records
  collect 63-accounts.txt accounts
  collect 64-recent-logs.txt recent_logs
  collect 70-cloud-init.txt cloud_init
  collect 71-cloud-init-logs.txt cloud_init_logs
  collect 72-cloud-init-scripts.txt cloud_init_scripts
  collect 80-containers.txt containers
  collect 90-memory.txt memory
  exec 9>&-

  (cd "$files" && tar -cf - ./*) 2>/dev/null | gzip -c >"$work/triage.tar.gz" || give_up problem archive
  gzip -t "$work/triage.tar.gz" 2>/dev/null || give_up problem archive
  size=$(size_of "$work/triage.tar.gz")
  hash=$(sha256 <"$work/triage.tar.gz")
  root=false
  [ "$(id -u 2>/dev/null)" != 0 ] || root=true
  {
    printf '{"Format":"cordon-capture/1","Platform":"Linux","Began":"%s","Ended":"%s","Root":%s,' "$began" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$root"
    printf '"Archive":{"Name":"triage.tar.gz","Size":%d,"Sha256":"%s"},"Files":[' "$size" "$hash"
    cat "$work/list"
    printf ']}\n'
  } >"$work/summary.json"

  uploaded=0
  put "$work/triage.tar.gz" "$SSM_TriageUrl" once && tell object triage.tar.gz "$hash" "$size" || uploaded=1
  put "$work/summary.json" "$SSM_SummaryUrl" once && tell object summary.json "$(sha256 <"$work/summary.json")" "$(size_of "$work/summary.json")" || uploaded=1
  while read -r word kib _; do
    [ "$word" != MemTotal: ] || tell memory-total $((kib * 1024))
  done </proc/meminfo
  [ "$uploaded" = 0 ] || give_up problem upload
}

# --- The memory -------------------------------------------------------------------------------------------------------

# What the kernel's lockdown is: none, integrity or confidentiality; none where the kernel has no such thing.
lockdown() {
  state=none
  [ ! -r /sys/kernel/security/lockdown ] || read -r state </sys/kernel/security/lockdown
  case $state in
    *'[integrity]'*) echo integrity ;;
    *'[confidentiality]'*) echo confidentiality ;;
    *) echo none ;;
  esac
}

# Whether a program is for this processor; only an ELF file tells.
fits_processor() {
  head=$(od -An -tx1 -N20 "$1" 2>/dev/null | tr -d ' \n')
  case $head in 7f454c46*) ;; *) return 0 ;; esac
  machine=${head#????????????????????????????????????}
  case $machine:$(uname -m) in
    3e00:x86_64 | b700:aarch64 | b700:arm64 | 0300:i?86) return 0 ;;
    *) return 1 ;;
  esac
}

memory_image() {
  [ "$(id -u 2>/dev/null)" = 0 ] || give_up unsupported not-root
  [ "$(lockdown)" != confidentiality ] || give_up unsupported lockdown
  { have sha256sum || have shasum || have openssl || interpreter >/dev/null; } || give_up unsupported no-hash
  can_upload || give_up unsupported no-uploader
  [ "$(printf x | dd bs=1 count=1 iflag=fullblock 2>/dev/null)" = x ] || give_up unsupported no-dd
  private_folder 196608 exec
  leave_nothing

  get "$SSM_PlanUrl" "$work/plan" || give_up problem plan
  [ "$(sha256 <"$work/plan")" = "$SSM_PlanSha256" ] || give_up problem plan
  tool_hash= tool_url= part_size= parts=0
  while read -r word one two; do
    case $word in
      tool) tool_hash=$one tool_url=$two ;;
      part-size) part_size=$one ;;
      part) parts=$one ;;
    esac
  done <"$work/plan"

  get "$tool_url" "$work/tool" || give_up problem tool-missing
  [ "$(sha256 <"$work/tool")" = "$tool_hash" ] || give_up problem tool-hash
  fits_processor "$work/tool" || give_up unsupported processor
  chmod 700 "$work/tool"
  if [ "$part_size" -ge 1048576 ]; then block=1048576; else block=$part_size; fi

  # The image never is a file: the tool writes into a pipe, and one part at a time is kept until it is uploaded.
  # The outer shell holds the pipe open until the tool has ended, however often the tool opens it.
  mkfifo "$work/image" "$work/hash" || give_up problem no-folder
  sha256 <"$work/hash" >"$work/sha256" &
  hasher=$!
  (
    exec 7>"$work/image"
    "$work/tool" "$work/image" </dev/null >"$work/said" 2>&1
    echo $? >"$work/code"
  ) &
  tool=$!
  # Ends with the tool, or ends it: its pipe then closes, and what has been uploaded is all there is.
  (
    while kill -0 "$tool" 2>/dev/null && [ "$(left)" -gt 5 ]; do sleep 1; done
    kill_tree "$tool"
  ) 5<&- 6>&- >/dev/null 2>&1 &
  exec 5<"$work/image" 6>"$work/hash"
  number=0 size=0 failed=
  while read -r word one url; do
    [ "$word" = part ] || continue
    dd bs="$block" count=$((part_size / block)) iflag=fullblock <&5 >"$work/part" 2>/dev/null || { failed=disk-full && break; }
    bytes=$(size_of "$work/part")
    [ "$bytes" -gt 0 ] || break
    cat "$work/part" >&6
    [ "$(left)" -gt 0 ] || { failed=deadline && break; }
    put "$work/part" "$url" part || { failed=upload && break; }
    number=$one
    size=$((size + bytes))
    tell part "$number" "$size" >&2
    [ "$bytes" = "$part_size" ] || break
  done <"$work/plan"
  exec 6>&-
  # Had the tool more to say than the plan has room for, it still wants to write.
  [ -n "$failed" ] || [ "$number" -lt "$parts" ] || [ -z "$(dd bs=1 count=1 <&5 2>/dev/null | od -An -tx1)" ] || failed=too-large
  [ -z "$failed" ] || give_up problem "$failed"
  exec 5<&-
  wait "$tool"
  tool=
  wait "$hasher"
  [ -f "$work/code" ] || give_up problem deadline
  read -r code <"$work/code"
  if [ "$code" != 0 ]; then
    [ "$(lockdown)" = none ] || give_up unsupported lockdown
    give_up problem tool-failed
  fi
  [ "$size" -gt 0 ] || give_up problem empty-image
  tell object memory.image "$(cat "$work/sha256")" "$size"
}

case ${SSM_Part:-} in
  triage) triage ;;
  memory) memory_image ;;
  *) give_up problem settings ;;
esac
