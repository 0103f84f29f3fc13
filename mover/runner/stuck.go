package runner

import (
	"fmt"
	"sync"

	"github.com/estiba-dev/estiba/mover/engine"
)

// maxStuck bounds the workers that are left behind: each holds memory, and a thread of this process.
const maxStuck = 8

// stuck are the workers that were killed and don't end, because a call to their volume does not come back.
type stuck struct {
	changed func(n int)

	mu sync.Mutex
	// volumes by the process IDs of the workers.
	volumes map[int]string
}

func (s *stuck) add(volume string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.volumes == nil {
		s.volumes = map[int]string{}
	}

	s.volumes[pid] = volume
	s.changed(len(s.volumes))
}

func (s *stuck) remove(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.volumes, pid)
	s.changed(len(s.volumes))
}

// refuse returns an error where a worker for the volume would only be stuck, too.
func (s *stuck) refuse(volume string) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	for pid, v := range s.volumes {
		if v == volume {
			return engine.Errorf(engine.CodeVolumeHung,
				"%s: process %d of an earlier job was killed and still waits for it", volume, pid)
		}
	}

	if n := len(s.volumes); n >= maxStuck {
		return engine.Errorf(engine.CodeVolumeHung,
			"%s is not tried: %s", volume, fmt.Sprintf("%d volumes of this node don't answer, and a killed worker waits for each", n))
	}

	return nil
}
