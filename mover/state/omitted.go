package state

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
)

// What the text of omissions holds at most: it stands in events, and in one line of Velero's.
const (
	omittedExamples = 3
	omittedExample  = 80
	omittedText     = 900
)

// Omitted returns the omissions in one line for people; empty for none.
func Omitted(list []v1alpha1.Omission) string {
	parts := make([]string, 0, len(list))

	for _, o := range list {
		parts = append(parts, fmt.Sprintf("%d %s%s", o.Count, o.Reason, examples(o)))
	}

	text := strings.Join(parts, ", ")
	if len(text) <= omittedText {
		return text
	}

	return strings.ToValidUTF8(text[:omittedText], "") + " ..."
}

func examples(o v1alpha1.Omission) string {
	kept := make([]string, 0, omittedExamples)

	for _, e := range o.Examples {
		if len(kept) < omittedExamples && len(e) <= omittedExample {
			kept = append(kept, plain(e))
		}
	}

	if len(kept) == 0 {
		return ""
	}

	if int64(len(kept)) < o.Count {
		kept = append(kept, "...")
	}

	return " (" + strings.Join(kept, ", ") + ")"
}

// plain returns the text without what would break a line: whoever names a file chooses it.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}

		return r
	}, text)
}
