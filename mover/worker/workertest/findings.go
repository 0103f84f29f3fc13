package workertest

import (
	"github.com/estiba-dev/estiba/mover/engine"
)

// Found is a summary in which a probing engine hands its findings over: paths of omissions are the one text
// in a worker's result that may be long.
func Found(text string) engine.Summary {
	return engine.Summary{Omissions: []engine.Omission{{Reason: "Findings", Count: 1, Examples: []string{text}}}}
}

// FoundIn returns what Found was given; empty where there is none.
func FoundIn(s engine.Summary) string {
	if len(s.Omissions) != 1 || len(s.Omissions[0].Examples) != 1 {
		return ""
	}

	return s.Omissions[0].Examples[0]
}
