package contract

import (
	"errors"
	"fmt"
	"regexp"
	"unicode"
	"unicode/utf8"
)

// TagOmissions is the tag of a snapshot that holds its Receipt.
const TagOmissions = "estiba-omissions"

// ReceiptVersion is the version of the receipts that this release writes.
const ReceiptVersion = 1

// ErrReceipt is what every error about a receipt that can't be read wraps.
var ErrReceipt = errors.New("unreadable receipt")

// The bounds of a receipt. All receipts of a repository are in memory whenever it is
// open, so what is written is short; what is read may be a later release's.
const (
	receiptExamples    = 3
	receiptExample     = 128
	maxReceipt         = 64 << 10
	maxReceiptReasons  = 64
	maxReceiptExamples = 10
	maxReceiptExample  = 512
	maxReceiptCount    = 1 << 53
)

// Receipt says what a snapshot lacks of its volume. It travels with the snapshot, so
// that a restore anywhere can say what it can't bring back.
type Receipt struct {
	Version int `json:"version"`
	// Omissions are in the order of their reasons, each reason once.
	Omissions []Omission `json:"omissions,omitempty"`
}

// Omission counts the entries, or attributes of entries, that were left out for one reason.
type Omission struct {
	// Reason is one word; a release may not know it.
	Reason string `json:"reason"`
	// Count of the entries.
	Count int64 `json:"count"`
	// Examples are the first paths, quoted as Go strings.
	Examples []string `json:"examples,omitempty"`
}

// Encode returns the tag's value. Of each reason, it keeps the count and the first few
// paths that are short enough.
func (r Receipt) Encode() (string, error) {
	r.Version = ReceiptVersion

	kept := make([]Omission, 0, len(r.Omissions))

	for _, o := range r.Omissions {
		var examples []string

		for _, e := range o.Examples {
			if len(examples) < receiptExamples && len(e) <= receiptExample {
				examples = append(examples, e)
			}
		}

		o.Examples = examples
		kept = append(kept, o)
	}

	r.Omissions = kept

	return encode(r)
}

// DecodeReceipt reads the value of TagOmissions. What it returns is well-formed,
// whoever has written it; errors wrap ErrReceipt.
func DecodeReceipt(s string) (Receipt, error) {
	var r Receipt

	if len(s) > maxReceipt {
		return Receipt{}, fmt.Errorf("tag %s: %w: it has %d bytes, more than %d", TagOmissions, ErrReceipt, len(s), maxReceipt)
	}

	if err := decodeVersion(s, &r, ReceiptVersion, func() int { return r.Version }); err != nil {
		return Receipt{}, fmt.Errorf("tag %s: %w: %w", TagOmissions, ErrReceipt, err)
	}

	if err := r.validate(); err != nil {
		return Receipt{}, fmt.Errorf("tag %s: %w: %w", TagOmissions, ErrReceipt, err)
	}

	return r, nil
}

var reasonWord = regexp.MustCompile(`^[A-Za-z]{1,64}$`)

func (r Receipt) validate() error {
	if len(r.Omissions) > maxReceiptReasons {
		return fmt.Errorf("it has %d omissions, more than %d", len(r.Omissions), maxReceiptReasons)
	}

	seen := make(map[string]bool, len(r.Omissions))

	for i, o := range r.Omissions {
		if !reasonWord.MatchString(o.Reason) || seen[o.Reason] {
			return fmt.Errorf("omissions[%d].reason is %.80q, which is no word or stands twice", i, o.Reason)
		}

		seen[o.Reason] = true

		if o.Count < 1 || o.Count > maxReceiptCount {
			return fmt.Errorf("omissions[%d].count is %d, expected 1 to %d", i, o.Count, int64(maxReceiptCount))
		}

		if len(o.Examples) > maxReceiptExamples || int64(len(o.Examples)) > o.Count {
			return fmt.Errorf("omissions[%d] has %d examples for a count of %d", i, len(o.Examples), o.Count)
		}

		for j, e := range o.Examples {
			if len(e) > maxReceiptExample || !printable(e) {
				return fmt.Errorf("omissions[%d].examples[%d] is %.80q, which is too long or not printable", i, j, e)
			}
		}
	}

	return nil
}

// printable reports whether the text is one line that shows what it is: examples end in
// events and logs.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}

	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}

	return true
}
