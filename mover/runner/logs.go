package runner

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/go-logr/logr"
)

// maxLogLine bounds a line of a worker's log, in bytes; the rest is cut off.
const maxLogLine = 64 << 10

// forwardLog passes a worker's log on until its end, and gives the line that
// tells best how the worker died: the first that a dying Go program writes, or
// else the last of all.
func forwardLog(r io.Reader, log logr.Logger) string {
	var last, panicked string

	lines := bufio.NewReaderSize(r, maxLogLine)

	for {
		line, err := readLine(lines)
		if text := strings.TrimSpace(line); text != "" {
			last = text

			if panicked == "" && (strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")) {
				panicked = text
			}

			forwardLine(text, log)
		}

		if err != nil {
			break
		}
	}

	if panicked != "" {
		return panicked
	}

	return last
}

// readLine gives the next line, cut off at the size of the reader's buffer.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	text := string(line)

	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}

	return text, err
}

func forwardLine(text string, log logr.Logger) {
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		log.Info("the worker wrote", "text", text)
		return
	}

	message, _ := fields["msg"].(string)
	level, _ := fields["level"].(string)

	delete(fields, "msg")
	delete(fields, "time")

	pairs := make([]any, 0, 2*len(fields))
	for k, v := range fields {
		pairs = append(pairs, k, v)
	}

	if level == "DEBUG" {
		log = log.V(1)
	}

	log.Info(message, pairs...)
}
