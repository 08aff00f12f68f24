"""The container: chunks, checksums, limits, index. Knows nothing of what is inside a payload.

Pure Python; docs/FORMAT.md specifies every byte. The interface:

    Header(family=, model_id=, kind=Kind.IMAGE, width=, height=, bit_depth=8, colour=Colour.RGB,
           quality=, tile=0)        frozen, checked; .columns .rows .tiles .box(number) -> Box
    Box(left, top, width, height)   where a tile lies, in pixels
    Chunk(type, payload)            type is a ChunkType: TILE PALETTE ALPHA ICC EXIF XMP TEXT, of
                                    videos VIDEO AUDIO GROUP, of scenes SCENE UNIT
    Video(rate=, matrix=, full_range=, groups=)     the VIDEO chunk; pack_video(video) -> bytes
    Scene(rate=, key_every=, frames=, gaussians=, plan=)    the SCENE chunk; pack_scene -> bytes
    Unit(frame, is_key, slices)     a UNIT chunk; pack_unit(unit) -> bytes,
                                    unpack_unit(payload, frame, slices_max=) -> Unit
    Limits(max_pixels=, max_pixels_per_byte=, max_tile_pixels=, max_tiles=, max_frames=,
           max_gaussians=)
    pack(header, chunks) -> bytes               TILE chunks in raster order, others in any order
    unpack(stream, limits) -> Container         .header .chunks .tiles .groups .video .units
                                                .scene .find(type) -> bytes | None
                                                with partial=True also of a file that is .cut,
                                                and with units that are damaged
    peek(stream) -> Header
    scan(stream, limits) -> Scan                .header | None, .chunks of ScannedChunk(type, name,
                                                offset, length, crc_ok), .error | None
    pack_streams({"z": b"", "y": b""}) -> bytes, unpack_streams(payload, ("z", "y")) -> dict
    whole_streams(payload, ("z", "y")) -> dict      of a payload that is cut
    pack_varint(value) -> bytes, Reader(data)   .take .varint .left .finish: for payloads' own heads

Whatever is wrong with a stream is a BitstreamError, except for a claim above `Limits`, which is a
LimitError.
"""

from codec.bitstream.container import (
    SIGNATURE,
    VERSION,
    Chunk,
    ChunkType,
    Container,
    Limits,
    Scan,
    ScannedChunk,
    pack,
    peek,
    scan,
    unpack,
)
from codec.bitstream.header import Box, Colour, Header, Kind
from codec.bitstream.scene import Scene, Unit, pack_scene, pack_unit, unpack_unit
from codec.bitstream.video import Video, pack_video
from codec.bitstream.wire import (
    Reader,
    pack_streams,
    pack_varint,
    unpack_streams,
    whole_streams,
)

__all__ = [
    "SIGNATURE",
    "VERSION",
    "Box",
    "Chunk",
    "ChunkType",
    "Colour",
    "Container",
    "Header",
    "Kind",
    "Limits",
    "Reader",
    "Scan",
    "ScannedChunk",
    "Scene",
    "Unit",
    "Video",
    "pack",
    "pack_scene",
    "pack_streams",
    "pack_unit",
    "pack_varint",
    "pack_video",
    "peek",
    "scan",
    "unpack",
    "unpack_streams",
    "unpack_unit",
    "whole_streams",
]
