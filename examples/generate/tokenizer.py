# SPDX-License-Identifier: Apache-2.0
"""The model's SentencePiece tokenizer, rebuilt from the GGUF metadata, and detokenisation one token at a time."""

import codecs

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as spm

SPACE = "\u2581"  # SentencePiece's visible stand-in for a space
BYTE = spm.ModelProto.SentencePiece.BYTE
CONTROL = spm.ModelProto.SentencePiece.CONTROL
UNKNOWN = spm.ModelProto.SentencePiece.UNKNOWN


class Tokenizer:
    def __init__(self, model_file):
        meta = model_file.meta
        self.tokens = meta("tokenizer.ggml.tokens")
        self.types = list(meta("tokenizer.ggml.token_type"))  # GGUF numbers the types as SentencePiece does
        # The converter files <unk> under control tokens; SentencePiece insists on exactly one unknown piece.
        self.types[meta("tokenizer.ggml.unknown_token_id")] = UNKNOWN
        self.bos_id = meta("tokenizer.ggml.bos_token_id")
        self.add_bos = meta("tokenizer.ggml.add_bos_token", True)
        proto = spm.ModelProto()
        for token, score, kind in zip(self.tokens, meta("tokenizer.ggml.scores"), self.types):
            proto.pieces.add(piece=token, score=score, type=kind)
        proto.trainer_spec.model_type = spm.TrainerSpec.BPE
        proto.trainer_spec.vocab_size = len(self.tokens)
        proto.trainer_spec.byte_fallback = BYTE in self.types
        proto.normalizer_spec.name = "identity"
        proto.normalizer_spec.add_dummy_prefix = meta("tokenizer.ggml.add_space_prefix", True)
        proto.normalizer_spec.remove_extra_whitespaces = False
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())

    def encode(self, text):
        return [self.bos_id] * self.add_bos + self.processor.encode(text)

    def token_bytes(self, token):
        """The UTF-8 bytes that a token stands for: perhaps only part of a character, none for control tokens."""
        kind, piece = self.types[token], self.tokens[token]
        if kind == BYTE:
            return bytes([int(piece[3:5], 16)])  # pieces <0x00> .. <0xFF>
        return b"" if kind == CONTROL else piece.replace(SPACE, " ").encode()

    def stream(self):
        """A function token -> text that can be shown now; bytes of an unfinished character wait for the next token."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        return lambda token: decoder.decode(self.token_bytes(token))

    def decode(self, tokens):
        return b"".join(map(self.token_bytes, tokens)).decode(errors="replace")
