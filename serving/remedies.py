"""What to do about a refusal, in the words of the command line and of the page; the API's own words stand in the refusals themselves."""

from __future__ import annotations

from collections.abc import Mapping

from serving.errors import Refusal

# By the refusal's code, which is the same whether it was raised here or came from a server. {classes} says where the classes and their
# colours are told, {snap} what the tick box is called. A code that is in neither table has a hint that everybody understands.
COMMAND: Mapping[str, str] = {
    "bad_request": "The server may be of another version than this command.",
    "internal": "Give a smaller picture, or tell the server's operator if it stays.",
    "method_not_allowed": "Say --server with the address alone, for example http://127.0.0.1:3000.",
    "no_classes": "Say --output colours or --output overlay.",
    "no_model": "Name a model that does.",
    "no_token": "Put one into the variable FEWPAIR_TOKEN.",
    "not_a_label_map": "Say --direction to_label for its label map; or give a PNG of ids or of the class colours, which {classes} shows.",
    "not_found": "Say --server with the address alone, for example http://127.0.0.1:3000.",
    "slow_body": "Give a smaller picture, or have the server's operator raise FEWPAIR_BODY_TIMEOUT.",
    "tiling_forbidden": "Say --tiles auto: the picture is run in one piece, at the model's scale.",
    "timeout": "Give smaller pictures, or have the server's operator raise FEWPAIR_TIMEOUT.",
    "too_fragmented": "Say --output ids, or give a smaller photo.",
    "too_large_without_tiles": "Say --tiles auto and name a model that allows tiling, or give a smaller picture.",
    "too_many_answer_bytes": "Give a smaller picture, or have the server's operator raise FEWPAIR_MAX_ANSWER_BYTES.",
    "too_many_bytes": "Give a smaller file; a server takes larger ones where its operator raises FEWPAIR_MAX_BYTES.",
    "too_many_pixels": "Give a smaller picture; a server takes larger ones where its operator raises FEWPAIR_MAX_PIXELS.",
    "too_wide_for_webp": "Say --format jpeg or --format png.",
    "unfit_size": "Give larger pictures.",
    "unknown_class_id": "{classes} shows them with their names.",
    "unknown_colours": "Give a PNG in the class colours, which {classes} shows (JPEG smears them), or say --snap to take the nearest.",
    "wrong_host": "Say --server with one of its names, or have its operator add this one to FEWPAIR_ALLOWED_HOSTS.",
}
PAGE: Mapping[str, str] = {
    "bad_seed": "Leave the seed empty for a random one.",
    "no_model": "Open the page again: the models have been changed.",
    "not_a_label_map": "Take it to the tab “Photo to label map”; or choose a PNG of ids or of the class colours, which {classes} shows.",
    "timeout": "Choose a smaller picture, or try again when the server is less busy.",
    "too_large_without_tiles": "Choose a smaller picture, or a model that can be run in tiles.",
    "too_many_bytes": "Choose a smaller file, or ask whoever runs this server to allow larger ones.",
    "too_many_pixels": "Choose a smaller picture, or ask whoever runs this server to allow larger ones.",
    "unfit_size": "Choose a larger picture.",
    "unknown_class_id": "{classes} shows them with their names.",
    "unknown_colours": "Choose a PNG in the class colours, which {classes} shows (JPEG smears them), or tick “{snap}”.",
}


def in_words(refusal: Refusal, remedies: Mapping[str, str], **told: str) -> Refusal:
    """The refusal with the remedy that its code has among these; its own where it has none."""
    if refusal.code not in remedies:
        return refusal
    remedy = remedies[refusal.code].format(**told)
    return Refusal(refusal.status, refusal.code, refusal.message, hint=remedy, headers=refusal.headers)
