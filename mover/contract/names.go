package contract

import (
	"strings"
	"unicode/utf8"
)

// A file's name is any bytes but '/' and NUL; kopia keeps names in JSON, which
// holds valid UTF-8 only and turns the rest into one and the same replacement
// character. So each byte b that has no place in JSON is kept as the rune
// escapeBase+b, from a plane that Unicode leaves to private use; a rune of that
// range that really stands in a name is kept byte by byte in the same way.
const escapeBase = 0x10FF00

// EncodeName returns the name under which a file is kept in a repository. It is
// the name itself wherever that is valid UTF-8 without escape runes.
func EncodeName(raw string) string {
	if plain(raw) {
		return raw
	}

	var b strings.Builder

	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRuneInString(raw[i:])
		if (r == utf8.RuneError && n == 1) || isEscape(r) {
			for _, c := range []byte(raw[i : i+n]) {
				b.WriteRune(escapeBase + rune(c))
			}
		} else {
			b.WriteString(raw[i : i+n])
		}

		i += n
	}

	return b.String()
}

// DecodeName is the inverse of EncodeName.
func DecodeName(kept string) string {
	if plain(kept) {
		return kept
	}

	b := make([]byte, 0, len(kept))

	for _, r := range kept {
		if isEscape(r) {
			b = append(b, byte(r-escapeBase))
		} else {
			b = utf8.AppendRune(b, r)
		}
	}

	return string(b)
}

func plain(s string) bool {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if (r == utf8.RuneError && n == 1) || isEscape(r) {
			return false
		}

		i += n
	}

	return true
}

func isEscape(r rune) bool { return r >= escapeBase+0x80 && r <= escapeBase+0xFF }
