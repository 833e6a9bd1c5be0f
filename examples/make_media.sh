#!/bin/sh
# Makes the example media anew from ffmpeg's test sources: examples/media/sample.mp4 and examples/media/hls/.
# Needs ffmpeg with libx264. Without -threads 1 and -bitexact the bytes would differ from run to run.
set -eu

media=$(cd "$(dirname "$0")" && pwd)/media
seconds=10

encode() {
    ffmpeg -hide_banner -loglevel error -y \
        -f lavfi -i "testsrc2=size=320x180:rate=25:duration=$seconds" \
        -f lavfi -i "sine=frequency=440:beep_factor=4:sample_rate=44100:duration=$seconds" \
        -map 0:v -map 1:a -shortest \
        -c:v libx264 -profile:v baseline -level 3.0 -pix_fmt yuv420p -preset veryslow -crf 34 -threads 1 \
        -g 50 -keyint_min 50 -sc_threshold 0 \
        -c:a aac -b:a 32k -ac 1 \
        -fflags +bitexact -flags:v +bitexact -flags:a +bitexact -map_metadata -1 \
        "$@"
}

rm -rf "$media/hls" "$media/sample.mp4"
mkdir -p "$media/hls"

# The index in front: a player can start before it has the tail.
encode -movflags +faststart "$media/sample.mp4"

# Fragmented MP4 in segments of two seconds, each of them one closed group of pictures.
encode -f hls -hls_time 2 -hls_playlist_type vod -hls_segment_type fmp4 \
    -hls_fmp4_init_filename init.mp4 -hls_segment_filename "$media/hls/segment%d.m4s" \
    "$media/hls/index.m3u8"

du -sb "$media"
