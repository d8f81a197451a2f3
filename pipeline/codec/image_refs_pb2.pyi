from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ImageRef(_message.Message):
    __slots__ = ("partner_id", "item_id", "external_id", "url", "content")
    PARTNER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ID_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    partner_id: int
    item_id: int
    external_id: str
    url: str
    content: bytes
    def __init__(self, partner_id: _Optional[int] = ..., item_id: _Optional[int] = ..., external_id: _Optional[str] = ..., url: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...
