package state

import "strings"

// MaxMessage bounds a message in a status, a condition or a gate's outcome, in bytes: what
// a worker says may quote a tenant's paths, and a status that is too big is refused as a whole.
const MaxMessage = 4 << 10

// maxReason is what the API server takes of a condition's reason, in bytes.
const maxReason = 1024

// Cut returns as much of the text as a message may hold.
func Cut(text string) string {
	const more = " ..."
	if len(text) <= MaxMessage {
		return strings.ToValidUTF8(text, "?")
	}

	return strings.ToValidUTF8(text[:MaxMessage-len(more)], "") + more
}

// Bounded returns the decision with a reason and a message that the API server
// takes, wherever they come from.
func (d Decision) Bounded() Decision {
	d.Message = Cut(d.Message)
	if d.Reason != "" && !word(d.Reason) {
		d.Reason = ReasonInternal
	}

	return d
}

// word reports whether the text can be a condition's reason.
func word(text string) bool {
	if len(text) > maxReason {
		return false
	}

	for i, r := range text {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r != '_' && (r < '0' || r > '9')) {
			return false
		}
	}

	return text != ""
}

// Unwritable is the decision about a job whose status the API server refuses.
func Unwritable(cause error) Decision {
	return failed(Finding{ReasonInternal, Cut("the API server refuses the job's status, so that what became of it can't be told; this is a fault of Estiba's: " + cause.Error())})
}
