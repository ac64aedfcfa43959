// The programs that kernels are compiled for (compiled.cuh), as the engine writes them. Not to be changed by hand:
//   ELBO_WRITE=1 cargo test --test compiled_programs
// Each instruction is {operation, destination, operands, immediate}; see params.cuh.
#pragma once

// mul exp normal mul add expm1 mul mul mul square expm1mx add mul sum
struct Program1 {
    static constexpr int REGS = 13, UNIFORM = 6, BODY = 15, OUTPUTS = 5;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {3, 1, 0, 0, 0}, {2, 2, 0, 0, 0}, {98, 3, 1, 2, 0}, {98, 4, 0, 3, 0}, {2, 5, 0, 0, 0},
        {1, 6, 0, 0, 0}, {98, 7, 6, 0, 0}, {32, 8, 7, 0, 0}, {1, 7, 0, 0, 1}, {4, 9, 0, 0, 0}, {98, 10, 9, 8, 0},
        {96, 9, 7, 10, 0}, {33, 10, 6, 0, 0}, {98, 11, 4, 10, 0}, {98, 10, 7, 5, 0}, {98, 12, 4, 10, 0}, {38, 10, 7, 0, 0},
        {34, 7, 6, 0, 0}, {96, 6, 10, 7, 0}, {98, 7, 0, 6, 0},
    };
    static constexpr Kept KEPT[] = {{8, 0}, {9, 0}, {11, 0}, {12, 0}, {7, 1}};
};

// add normal mul mul mul add
struct Program2 {
    static constexpr int REGS = 7, UNIFORM = 1, BODY = 10, OUTPUTS = 2;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {0, 2, 0, 0, 0}, {96, 3, 1, 2, 0}, {1, 1, 0, 0, 1}, {1, 4, 0, 0, 2},
        {4, 5, 0, 0, 0}, {98, 6, 5, 2, 0}, {98, 5, 4, 6, 0}, {98, 6, 0, 5, 0}, {96, 5, 1, 6, 0},
    };
    static constexpr Kept KEPT[] = {{3, 0}, {5, 0}};
};

// mul exp normal mul add sub mul exp mul square add mul sub square mul sub mul mul mul mul mul mul mul add negate
struct Program3 {
    static constexpr int REGS = 14, UNIFORM = 4, BODY = 28, OUTPUTS = 7;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {2, 1, 0, 0, 0}, {2, 2, 0, 0, 0}, {2, 3, 0, 0, 0}, {1, 4, 0, 0, 0}, {98, 5, 4, 0, 0},
        {32, 6, 5, 0, 0}, {1, 5, 0, 0, 1}, {4, 7, 0, 0, 0}, {98, 8, 7, 6, 0}, {96, 7, 5, 8, 0}, {97, 8, 7, 5, 0},
        {98, 5, 4, 1, 0}, {32, 9, 5, 0, 0}, {98, 5, 8, 9, 0}, {38, 10, 5, 0, 0}, {96, 11, 4, 10, 0}, {98, 10, 1, 11, 0},
        {97, 11, 10, 2, 0}, {38, 10, 7, 0, 0}, {98, 4, 1, 10, 0}, {97, 10, 4, 2, 0}, {1, 4, 0, 0, 2}, {98, 12, 1, 4, 0},
        {98, 4, 5, 3, 0}, {98, 5, 12, 4, 0}, {98, 4, 9, 5, 0}, {98, 13, 8, 5, 0}, {98, 5, 9, 13, 0}, {98, 13, 1, 5, 0},
        {96, 5, 12, 13, 0}, {42, 13, 4, 0, 0},
    };
    static constexpr Kept KEPT[] = {{6, 0}, {7, 0}, {11, 0}, {10, 0}, {4, 0}, {5, 0}, {13, 0}};
};

// add softplus+sigmoid mul sub negate mul mul add
struct Program4 {
    static constexpr int REGS = 7, UNIFORM = 2, BODY = 11, OUTPUTS = 2;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {2, 1, 0, 0, 0}, {0, 2, 0, 0, 0}, {1, 3, 0, 0, 0}, {96, 4, 2, 3, 0}, {8, 3, 4, 2, 0},
        {1, 5, 0, 0, 1}, {98, 6, 5, 4, 0}, {97, 4, 3, 6, 0}, {42, 6, 4, 0, 0}, {98, 4, 5, 0, 0}, {98, 5, 1, 2, 0},
        {96, 2, 4, 5, 0},
    };
    static constexpr Kept KEPT[] = {{6, 0}, {2, 0}};
};

// sub mul sub sum
struct Program5 {
    static constexpr int REGS = 5, UNIFORM = 1, BODY = 5, OUTPUTS = 2;
    static constexpr Instr CODE[] = {
        {3, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {1, 2, 0, 0, 1}, {97, 3, 1, 2, 0}, {98, 4, 3, 0, 0}, {97, 3, 2, 1, 0},
    };
    static constexpr Kept KEPT[] = {{4, 0}, {3, 1}};
};

// mul mul mul add add add normal mul mul mul add
struct Program6 {
    static constexpr int REGS = 9, UNIFORM = 3, BODY = 18, OUTPUTS = 2;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {2, 1, 0, 0, 0}, {2, 2, 0, 0, 0}, {1, 3, 0, 0, 0}, {0, 4, 0, 0, 0}, {1, 5, 0, 0, 1},
        {98, 6, 0, 5, 0}, {1, 5, 0, 0, 2}, {98, 7, 5, 1, 0}, {98, 5, 6, 7, 0}, {96, 7, 4, 5, 0}, {1, 5, 0, 0, 3},
        {96, 4, 7, 5, 0}, {96, 5, 3, 4, 0}, {1, 3, 0, 0, 4}, {1, 7, 0, 0, 5}, {4, 6, 0, 0, 0}, {98, 8, 6, 4, 0},
        {98, 6, 7, 8, 0}, {98, 8, 2, 6, 0}, {96, 6, 3, 8, 0},
    };
    static constexpr Kept KEPT[] = {{5, 0}, {6, 0}};
};

// add
struct Program7 {
    static constexpr int REGS = 3, UNIFORM = 0, BODY = 3, OUTPUTS = 1;
    static constexpr Instr CODE[] = {
        {1, 0, 0, 0, 0}, {1, 1, 0, 0, 1}, {96, 2, 0, 1, 0},
    };
    static constexpr Kept KEPT[] = {{2, 0}};
};

// sum
struct Program8 {
    static constexpr int REGS = 1, UNIFORM = 0, BODY = 1, OUTPUTS = 1;
    static constexpr Instr CODE[] = {
        {1, 0, 0, 0, 0},
    };
    static constexpr Kept KEPT[] = {{0, 1}};
};

// mul exp normal mul add sub mul exp mul square add mul sub square mul sub mul
struct Program9 {
    static constexpr int REGS = 12, UNIFORM = 4, BODY = 19, OUTPUTS = 7;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {2, 1, 0, 0, 0}, {2, 2, 0, 0, 0}, {2, 3, 0, 0, 0}, {1, 4, 0, 0, 0}, {98, 5, 4, 0, 0},
        {32, 6, 5, 0, 0}, {1, 5, 0, 0, 1}, {4, 7, 0, 0, 0}, {98, 8, 7, 6, 0}, {96, 7, 5, 8, 0}, {97, 8, 7, 5, 0},
        {98, 5, 4, 1, 0}, {32, 9, 5, 0, 0}, {98, 5, 8, 9, 0}, {38, 10, 5, 0, 0}, {96, 11, 4, 10, 0}, {98, 10, 1, 11, 0},
        {97, 11, 10, 2, 0}, {38, 10, 7, 0, 0}, {98, 4, 1, 10, 0}, {97, 10, 4, 2, 0}, {98, 4, 5, 3, 0},
    };
    static constexpr Kept KEPT[] = {{6, 0}, {7, 0}, {8, 0}, {9, 0}, {11, 0}, {10, 0}, {4, 0}};
};

// add softplus+sigmoid mul sub negate
struct Program10 {
    static constexpr int REGS = 5, UNIFORM = 0, BODY = 8, OUTPUTS = 2;
    static constexpr Instr CODE[] = {
        {0, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {96, 2, 0, 1, 0}, {8, 1, 2, 0, 0}, {1, 3, 0, 0, 1}, {98, 4, 2, 3, 0},
        {97, 3, 1, 4, 0}, {42, 4, 3, 0, 0},
    };
    static constexpr Kept KEPT[] = {{4, 0}, {0, 0}};
};

// log add div
struct Program11 {
    static constexpr int REGS = 5, UNIFORM = 1, BODY = 5, OUTPUTS = 2;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {1, 2, 0, 0, 1}, {35, 3, 2, 0, 0}, {96, 4, 1, 3, 0}, {99, 3, 0, 2, 0},
    };
    static constexpr Kept KEPT[] = {{4, 0}, {3, 0}};
};

// sub sum
struct Program12 {
    static constexpr int REGS = 3, UNIFORM = 1, BODY = 2, OUTPUTS = 1;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {97, 2, 1, 0, 0},
    };
    static constexpr Kept KEPT[] = {{2, 1}};
};

// mul negate mul add
struct Program13 {
    static constexpr int REGS = 4, UNIFORM = 0, BODY = 7, OUTPUTS = 1;
    static constexpr Instr CODE[] = {
        {1, 0, 0, 0, 0}, {1, 1, 0, 0, 1}, {98, 2, 0, 1, 0}, {42, 0, 1, 0, 0}, {1, 1, 0, 0, 2}, {98, 3, 0, 1, 0},
        {96, 1, 2, 3, 0},
    };
    static constexpr Kept KEPT[] = {{1, 0}};
};

// mul mul mul mul mul mul add negate
struct Program14 {
    static constexpr int REGS = 7, UNIFORM = 1, BODY = 12, OUTPUTS = 3;
    static constexpr Instr CODE[] = {
        {2, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {1, 2, 0, 0, 1}, {98, 3, 0, 2, 0}, {1, 2, 0, 0, 2}, {98, 4, 3, 2, 0},
        {98, 2, 1, 4, 0}, {1, 5, 0, 0, 3}, {98, 6, 5, 4, 0}, {98, 5, 1, 6, 0}, {98, 6, 0, 5, 0}, {96, 5, 3, 6, 0},
        {42, 6, 2, 0, 0},
    };
    static constexpr Kept KEPT[] = {{2, 0}, {5, 0}, {6, 0}};
};

#define ELBO_COMPILED_PROGRAMS(X) \
    X(1, Program1) \
    X(2, Program2) \
    X(3, Program3) \
    X(4, Program4) \
    X(5, Program5) \
    X(6, Program6) \
    X(7, Program7) \
    X(8, Program8) \
    X(9, Program9) \
    X(10, Program10) \
    X(11, Program11) \
    X(12, Program12) \
    X(13, Program13) \
    X(14, Program14)
